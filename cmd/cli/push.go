package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

type pushFlags struct {
	registry            registryFlags
	compression, format string
	level               int
	digestFile          string
	removeSignatures    bool
	quiet               bool
	all, rm             bool
	force, disable      bool
	addCompression      []string
	list                bool // what is pushed must be a list of images
	encrypt             encryptFlags
	sign                signFlags
}

func newPushCommand(a *app) *cobra.Command {
	var flags pushFlags
	cmd := &cobra.Command{
		Use:   "push [flags] image [destination]",
		Short: "Write an image to a registry, an archive or a directory",
		Long: `Write an image of the store elsewhere: to a registry (docker://, or no transport
at all), an OCI layout (oci:), an archive (oci-archive:, docker-archive:) or a
directory (dir:). Without a destination the image's own name says where. A list
of images is written with all its images.`,
		Example: `  strata push registry.example/team/hello:1
  strata push hello docker://registry.example/team/hello:1
  strata push --digestfile hello.digest hello oci-archive:hello.tar`,
		Args:              wantArgs(1, 2, "an image and at most one destination"),
		ValidArgsFunction: a.completeImages(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPush(a, cmd, &flags, args) },
	}
	flags.add(cmd)
	flags.encrypt.add(cmd)
	addBlobCache(cmd)
	return cmd
}

// add adds the flags that pushes of images and of lists share.
func (f *pushFlags) add(cmd *cobra.Command) {
	flags := f
	flags.registry.add(cmd)
	flags.sign.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&flags.compression, "compression-format", "", "compress layers with gzip or zstd; give the `format` (default: gzip for registries)")
	fs.IntVar(&flags.level, "compression-level", 0, "compress this `much`; what a level means depends on the format")
	fs.StringVar(&flags.digestFile, "digestfile", "", "write the digest of the manifest, as sha256:..., to this `file`")
	fs.StringVarP(&flags.format, "format", "f", "", "media types of the manifest: oci or docker; give the `format` (default: the image's)")
	fs.BoolVar(&flags.removeSignatures, "remove-signatures", false, "leave the image's signatures behind")
	fs.BoolVarP(&flags.quiet, "quiet", "q", false, "print nothing")
	fs.BoolVar(&flags.all, "all", true, "write the images of a list, too; false writes the list alone, to where its images are")
	fs.BoolVar(&flags.rm, "rm", false, "remove a list of images from the store once it is written; its images stay")
	fs.BoolVarP(&flags.disable, "disable-compression", "D", false, "leave layers and manifest as they are in the store: uncompressed, with the digest that the store knows")
	fs.BoolVar(&flags.force, "force-compression", false, "compress all layers, with the format asked for or gzip, although the destination has them in another one")
	_ = cmd.RegisterFlagCompletionFunc("format", fixedValues("oci", "docker"))
	_ = cmd.RegisterFlagCompletionFunc("compression-format", fixedValues("gzip", "zstd"))
}

// options checks the flags' values.
func (f *pushFlags) options(cmd *cobra.Command) (transport.PushOptions, error) {
	o := transport.PushOptions{Compression: f.compression, RemoveSignatures: f.removeSignatures, ListOnly: !f.all}
	var err error
	if o.Encryption, err = f.encrypt.options(); err != nil {
		return o, err
	}
	if o.Signing, err = f.sign.options(); err != nil {
		return o, err
	}
	if f.force && f.compression == "" {
		o.Compression = "gzip"
	}
	o.Uncompressed, o.AddCompression = f.disable, f.addCompression
	if f.disable && (f.compression != "" || f.force || cmd.Flags().Changed("compression-level")) {
		return o, fmt.Errorf("--disable-compression and --compression-format, --compression-level or --force-compression: want one or the other: %w", define.ErrInvalid)
	}
	for _, name := range f.addCompression {
		if name != "gzip" && name != "zstd" {
			return o, fmt.Errorf("--add-compression %q: want gzip or zstd: %w", name, define.ErrInvalid)
		}
	}
	switch f.compression {
	case "", "gzip", "zstd":
	default:
		return o, fmt.Errorf("--compression-format %q: want gzip or zstd: %w", f.compression, define.ErrInvalid)
	}
	if cmd.Flags().Changed("compression-level") {
		o.CompressionLevel = &f.level
	}
	switch f.format {
	case "":
	case "v2s2":
		o.Format = define.FormatDocker // buildah's and skopeo's word
	default:
		format, err := define.ParseFormat(f.format)
		if err != nil {
			return o, fmt.Errorf("--format: %w", err)
		}
		o.Format = format
	}
	return o, nil
}

func runPush(a *app, cmd *cobra.Command, flags *pushFlags, args []string) error {
	access, err := flags.registry.options(cmd, true)
	if err != nil {
		return err
	}
	options, err := flags.options(cmd)
	if err != nil {
		return err
	}
	digestFile := resultFile{"digestfile", flags.digestFile}
	if err := digestFile.check(); err != nil {
		return err
	}
	if err := a.enter(false); err != nil {
		return err
	}
	a.startDisplay(quietMode(flags.quiet))
	engine, err := a.openEngine(cmd.Context(), builder.Options{Store: a.global.store(), Transport: access, Listener: a.display})
	if err != nil {
		return err
	}
	local, err := engine.Transport().FindEntry(args[0])
	if err != nil {
		return err
	}
	destination, err := pushDestination(args, local)
	if err != nil {
		return err
	}
	if flags.rm || flags.list {
		if err := wantList(engine, local, args[0]); err != nil {
			return err
		}
	}
	digest, err := engine.Transport().Push(cmd.Context(), local.ID, destination, options)
	if err != nil {
		return err
	}
	if err := digestFile.write([]byte(digest.String())); err != nil || !flags.rm {
		return err
	}
	_, err = imagestore.Remove(engine.Store(), imagestore.Target{ID: local.ID}, true)
	return err
}

// wantList refuses what is not a list of images.
func wantList(e *builder.Engine, local transport.Local, name string) error {
	stored, err := image.Load(e.Store(), local.ID)
	if err == nil && !image.IsIndex(stored.MediaType) {
		err = fmt.Errorf("%s is a single image, not a list: %w", name, define.ErrInvalid)
	}
	return err
}

// pushDestination is the second argument, or the registry that the image's
// own name says.
func pushDestination(args []string, local transport.Local) (string, error) {
	if len(args) == 2 {
		return args[1], nil
	}
	if local.Name == "" || strings.HasPrefix(local.Name, "localhost/") {
		return "", fmt.Errorf("image %s: its name has no registry; give a destination, such as docker://registry.example/team/name:tag: %w",
			args[0], define.ErrInvalid)
	}
	return "docker://" + local.Name, nil
}
