package cli

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
)

type fromFlags struct {
	name, cidFile, pull   string
	suffix                string
	format                string
	pullAlways, pullNever bool
	quiet                 bool

	registry registryFlags
	platform platformFlags
	run      runFlags
}

func newFromCommand(a *app) *cobra.Command {
	f := &fromFlags{}
	cmd := &cobra.Command{
		Use:   "from [flags] image",
		Short: "Make a working container of an image",
		Long: `Make a working container: an image's files, which run, copy and add change and
commit makes an image of. The image is one of the store's, of a registry, or,
with a transport in front of its name, of an OCI layout (oci:), an archive
(oci-archive:, docker-archive:) or a directory (dir:); scratch is the empty one.

Standard output gets the container's name. Flags about steps hold for each run
in the container, unless that says otherwise.`,
		Example: `  ctr=$(strata from alpine)
  strata from --name app --pull=always registry.example/team/base:1
  strata from scratch`,
		Args:              wantArgs(1, 1, "one image"),
		ValidArgsFunction: a.completeImages(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return f.execute(a, cmd, args[0]) },
	}
	fs := cmd.Flags()
	otherNames(fs, map[string]string{"net": "network", "override-arch": "arch", "override-os": "os"})
	fs.StringVar(&f.name, "name", "", "the container's `name` (default: made of the image's, as in alpine-working-container)")
	fs.StringVar(&f.suffix, "suffix", "", "end the container's name, where it is made of the image's, in this `word` instead of working-container")
	fs.StringVar(&f.cidFile, "cidfile", "", "write the container's ID to this `file`")
	fs.StringVarP(&f.format, "format", "f", "", "media types of the images that commit makes of the container, unless it says otherwise: oci or docker; give the `format`")
	fs.StringVar(&f.pull, "pull", "missing", "when to fetch the image: missing, always, newer or never; give the `policy` (--pull alone means always)")
	fs.Lookup("pull").NoOptDefVal = "always"
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but the container's name")
	fs.BoolVar(&f.pullAlways, "pull-always", false, "the same as --pull=always")
	fs.BoolVar(&f.pullNever, "pull-never", false, "the same as --pull=never")
	_ = fs.MarkHidden("pull-always")
	_ = fs.MarkHidden("pull-never")
	f.registry.add(cmd)
	f.registry.addDecryption(cmd)
	f.platform.addFor(cmd, "the `os/arch[/variant]` of the image (default: this machine's)")
	f.run.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("format", fixedValues("oci", "docker"))
	_ = cmd.RegisterFlagCompletionFunc("pull", fixedValues("missing", "always", "newer", "never"))
	return cmd
}

// options checks every value and translates the flags. It touches no store.
func (f *fromFlags) options(a *app, cmd *cobra.Command, image string) (o builder.Options, c builder.CreateOptions, err error) {
	o.Store = a.global.store()
	if o.Transport, err = f.registry.options(cmd, true); err != nil {
		return o, c, err
	}
	if f.name != "" {
		if err := builder.CheckContainerName(f.name); err != nil {
			return o, c, fmt.Errorf("--name: %w", err)
		}
	}
	if f.suffix != "" {
		if f.name != "" {
			return o, c, fmt.Errorf("--suffix and --name: want one or the other: %w", define.ErrInvalid)
		}
		if err := builder.CheckContainerName("x-" + f.suffix); err != nil {
			return o, c, fmt.Errorf("--suffix: %w", err)
		}
	}
	c.Suffix = f.suffix
	c.Name, c.From.Image, c.Script = f.name, image, a.getenv(transactionVariable)
	if c.From.Platform, err = f.platform.one(); err != nil {
		return o, c, err
	}
	if c.From.Pull, err = f.pullPolicy(cmd); err != nil {
		return o, c, err
	}
	if c.Settings.Isolation, c.Settings.Runtime, c.Settings.RuntimeFlags, err = f.run.engine(a); err != nil {
		return o, c, err
	}
	if f.format != "" {
		if c.Settings.Format, err = define.ParseFormat(f.format); err != nil {
			return o, c, fmt.Errorf("--format: %w", err)
		}
	}
	c.Defaults, err = f.run.options()
	return o, c, err
}

func (f *fromFlags) pullPolicy(cmd *cobra.Command) (define.PullPolicy, error) {
	b := buildFlags{pull: f.pull, pullAlways: f.pullAlways, pullNever: f.pullNever}
	return b.pullPolicy(cmd)
}

func (f *fromFlags) execute(a *app, cmd *cobra.Command, image string) error {
	o, create, err := f.options(a, cmd, image)
	if err != nil {
		return err
	}
	cid := resultFile{"cidfile", f.cidFile}
	if err := cid.check(); err != nil {
		return err
	}
	if err := a.enter(false); err != nil {
		return err
	}
	a.startDisplay(quietMode(f.quiet))
	o.Listener = a.display
	engine, err := a.openEngine(cmd.Context(), o)
	if err != nil {
		return err
	}
	c, err := engine.Create(cmd.Context(), create)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, c.Close)
	if err := cid.write([]byte(c.ID())); err != nil {
		return err
	}
	a.closeDisplay()
	a.println(c.Name())
	return nil
}
