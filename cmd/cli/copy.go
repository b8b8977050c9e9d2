package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/imagebuildah"
)

func newCopyCommand(a *app) *cobra.Command {
	f := &copyFlags{}
	cmd := &cobra.Command{
		Use:   "copy [flags] container source... [destination]",
		Short: "Copy files into a working container",
		Long: `Copy files, directories and downloads (http, https) into a working container. The
destination is relative to the container's working directory, which it is when
only one source is given. Sources may hold wildcards; with --contextdir they are
relative to that directory, with --from they lie in an image or container.

Standard output gets a digest of what was copied.`,
		Example: `  strata copy app app.conf /etc/app/
  strata copy --chown app:app --exclude '**/*.o' app src/ /srv
  strata copy --from golang app /usr/local/go /usr/local/go`,
		Args:              wantArgs(2, -1, "a container and at least one source"),
		ValidArgsFunction: a.completeCopy,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args) },
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.o.Parents, "parents", false, "keep the directories that sources lie in, those behind /./ if that is in a name")
	return cmd
}

func newAddCommand(a *app) *cobra.Command {
	f := &copyFlags{unpacks: true}
	cmd := &cobra.Command{
		Use:   "add [flags] container source... [destination]",
		Short: "Copy files into a working container, and unpack archives",
		Long: `Copy files into a working container as copy does. What is a tar archive,
compressed or not, is unpacked, but for downloads; a git repository's URL stands
for its files; and - alone is an archive on standard input.

Standard output gets a digest of what was added, but for an archive that comes
from standard input.`,
		Example: `  strata add app rootfs.tar.xz /
  mmdebstrap stable | strata add app - /
  strata add --checksum sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d app https://host.example/app.tar.gz /tmp/`,
		Args:              wantArgs(2, -1, "a container and at least one source"),
		ValidArgsFunction: a.completeCopy,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args) },
	}
	f.add(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&f.o.KeepGitDir, "keep-git-dir", false, "keep the .git directory of git repositories")
	fs.BoolVar(&f.unpack, "unpack", false, "unpack downloads, too; false unpacks nothing")
	return cmd
}

type copyFlags struct {
	o imagebuildah.CopyOptions
	// unpacks: the command is add.
	unpacks          bool
	unpack           bool
	allowWildcard    bool
	quiet            bool
	removeSignatures bool
	timestamp        string
	step             stepFlags
	registry         registryFlags
}

func (f *copyFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.allowWildcard, "allow-wildcard", true, "take *, ? and [...] in sources as wildcards")
	fs.BoolVar(&f.o.AllowEmpty, "allow-empty-wildcard", false, "do nothing, instead of failing, when wildcards match nothing")
	fs.BoolVar(&f.o.NoFollow, "no-follow-symlinks", false, "copy a symbolic link that is a source itself, instead of what it leads to")
	fs.BoolVar(&f.removeSignatures, "remove-signatures", false, "do not store the signatures of the image that --from fetches")
	fs.StringVar(&f.o.Checksum, "checksum", "", "the `digest` that a download must have, as sha256:...")
	fs.StringVar(&f.o.Chmod, "chmod", "", "permissions of what is copied, in octal or as `u=rwX,go=rX`")
	fs.StringVar(&f.o.Chown, "chown", "", "owner of what is copied, as `user[:group]`, names of the container's or numbers (default 0:0)")
	fs.StringVar(&f.o.ContextDir, "contextdir", "", "take sources from this `directory`, without what its .containerignore or .dockerignore names")
	fs.StringSliceVar(&f.o.Exclude, "exclude", nil, "leave out what this `pattern` matches, relative to the source")
	fs.StringVar(&f.o.From, "from", "", "take sources from this `container-or-image`")
	fs.StringVar(&f.o.IgnoreFile, "ignorefile", "", "read this `file` instead of the .containerignore of --contextdir")
	fs.BoolVar(&f.o.Link, "link", false, "make a layer of its own, which depends on nothing in the container: links there are replaced, not followed")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "do not print the digest")
	fs.StringVar(&f.timestamp, "timestamp", "", "set the times of what is copied to this number of `seconds` since 1970")
	f.step.add(cmd)
	f.registry.add(cmd)
	f.registry.addDecryption(cmd)
	addBlobCache(cmd)
	_ = cmd.MarkFlagDirname("contextdir")
}

// options checks every value and translates the flags. It touches no store.
func (f *copyFlags) options(a *app, cmd *cobra.Command, args []string) (engine builder.Options, err error) {
	f.o.Sources = args
	if len(args) > 1 {
		f.o.Sources, f.o.Dest = args[:len(args)-1], args[len(args)-1]
	}
	if !f.allowWildcard {
		f.o.Sources = escapeWildcards(f.o.Sources)
	}
	f.o.Add, f.o.NoDigest, f.o.Stdin = f.unpacks, f.quiet, a.std.In
	if cmd.Flags().Changed("unpack") {
		f.o.Unpack = &f.unpack
	}
	if f.o.StepOptions, err = f.step.options(a, cmd); err != nil {
		return engine, err
	}
	if f.o.Timestamp, err = parseSeconds("timestamp", f.timestamp); err != nil {
		return engine, err
	}
	engine.Store = a.global.store()
	engine.Transport, err = f.registry.options(cmd, true)
	engine.Transport.RemoveSignatures = f.removeSignatures
	return engine, err
}

// escapeWildcards makes patterns that match the names alone.
func escapeWildcards(names []string) []string {
	escaped := make([]string, len(names))
	for i, n := range names {
		if escaped[i] = n; !strings.Contains(n, "://") {
			escaped[i] = imagebuildah.Literal(n)
		}
	}
	return escaped
}

func (f *copyFlags) execute(a *app, cmd *cobra.Command, args []string) error {
	o, err := f.options(a, cmd, args[1:])
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if err := a.enter(false); err != nil {
		return err
	}
	a.startDisplay(quietMode(f.quiet && !f.o.Explain))
	o.Listener = a.display
	engine, err := a.openEngine(ctx, o)
	if err != nil {
		return err
	}
	c, err := engine.OpenContainer(ctx, args[0])
	if err != nil {
		return err
	}
	a.closers = append(a.closers, c.Close)
	done, err := imagebuildah.Copy(ctx, c, f.o)
	if err == nil && f.o.Link {
		err = c.Save(ctx)
	}
	if err = f.step.keep(ctx, c, err); err != nil {
		return err
	}
	if !f.quiet && done.Digest != "" {
		a.closeDisplay()
		a.println(done.Digest.Encoded())
	}
	return nil
}

// completeCopy completes the container; what follows are files.
func (a *app) completeCopy(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeContainers(1)(cmd, args, start)
}
