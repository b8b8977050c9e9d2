package cli

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

type commitFlags struct {
	addFiles, annotations, changes                []string
	unsetAnnotations, unsetEnv                    []string
	manifest                                      string
	configFile, format                            string
	iidFile, metadataFile                         string
	createdAnnotation, identityLabel, omitHistory bool
	quiet, rm, squash, rewriteTimestamp           bool
	pull, compressionFormat                       string
	compressionLevel                              int
	disableCompression, forceCompression          bool
	omitTimestamp                                 bool
	referenceTime                                 string
	registry                                      registryFlags
	time                                          timeFlags
	sbom                                          sbomFlags
	encrypt                                       encryptFlags
}

func (f *commitFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.addFiles, "add-file", nil, "add a file of the host to the image alone, as `source[:destination]`, owned by 0:0 with mode 0644")
	fs.StringArrayVar(&f.annotations, "annotation", nil, "add an annotation to the image's manifest, as `key=value`")
	fs.StringArrayVarP(&f.changes, "change", "c", nil, "change the image's settings by an `instruction`, such as \"ENV A=b\" or \"CMD /bin/app\"")
	fs.StringVar(&f.compressionFormat, "compression-format", "", "compress layers that are written elsewhere with gzip or zstd; give the `format`")
	fs.IntVar(&f.compressionLevel, "compression-level", 0, "compress this `much`; what a level means depends on the format")
	fs.StringVar(&f.configFile, "config", "", "change the image's settings by those of this JSON `file` (the \"config\" object of an image's config)")
	fs.BoolVar(&f.createdAnnotation, "created-annotation", false, "add the annotation org.opencontainers.image.created")
	fs.BoolVarP(&f.disableCompression, "disable-compression", "D", true, "compress layers only where the destination wants it; false compresses them wherever they are written but in the store")
	fs.BoolVar(&f.forceCompression, "force-compression", false, "compress layers anew that the destination has with another compression")
	fs.StringVarP(&f.format, "format", "f", "oci", "media types of the image: oci or docker; give the `format` (default: the container's, else oci)")
	fs.BoolVar(&f.identityLabel, "identity-label", false, "add the label "+identityLabel+" with the version of strata")
	fs.StringVar(&f.iidFile, "iidfile", "", "write the image's ID, as sha256:..., to this `file`")
	fs.StringVar(&f.manifest, "manifest", "", "add the image to the list of images of this `name`, which is made if there is none")
	fs.StringVar(&f.metadataFile, "metadata-file", "", "write what is known of the image, as JSON, to this `file`")
	fs.BoolVar(&f.omitHistory, "omit-history", false, "leave the history out of the image")
	fs.StringVar(&f.pull, "pull", "true", "accepted for buildah's sake, without effect: a commit fetches no image; a `policy`")
	fs.Lookup("pull").NoOptDefVal = "true"
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but the image's ID")
	fs.BoolVar(&f.rewriteTimestamp, "rewrite-timestamp", false, "lower later times of the new layer's files to --source-date-epoch")
	fs.BoolVar(&f.rm, "rm", false, "remove the container when the image is made")
	fs.BoolVar(&f.squash, "squash", false, "make one layer of everything, the base image's layers included")
	fs.StringSliceVar(&f.unsetAnnotations, "unsetannotation", nil, "leave out the annotation of this `key`")
	fs.StringSliceVar(&f.unsetEnv, "unsetenv", nil, "leave out the variable of this `name`")
	f.sbom.add(cmd, "make a bill of materials with the scanner, commands and merge strategy of this `preset`: "+strings.Join(imagebuildah.SBOMPresets, ", "))
	f.registry.add(cmd)
	f.encrypt.add(cmd)
	addBlobCache(cmd)
	fs.StringVar(&f.time.timestamp, "timestamp", "", "set the image's times, and those of all files in the new layer, to this number of `seconds` since 1970")
	fs.StringVar(&f.time.epoch, "source-date-epoch", "", "set the image's times to this number of `seconds` since 1970")
	fs.BoolVar(&f.omitTimestamp, "omit-timestamp", false, "the same as --timestamp 0")
	_ = fs.MarkHidden("omit-timestamp")
	fs.StringVar(&f.referenceTime, "reference-time", "", "set times as --timestamp does, to the time when this `file` was changed last")
	_ = cmd.MarkFlagFilename("reference-time")
	for _, name := range []string{"pull-always", "pull-never"} {
		fs.Bool(name, false, "accepted for buildah's sake, without effect")
		_ = fs.MarkHidden(name)
	}
	_ = cmd.RegisterFlagCompletionFunc("format", fixedValues("oci", "docker"))
	_ = cmd.RegisterFlagCompletionFunc("compression-format", fixedValues("gzip", "zstd"))
}

// identityLabel names the builder in an image.
const identityLabel = "io.strata.version"

// plan checks every value and translates the flags. It touches no store.
func (f *commitFlags) plan(a *app, cmd *cobra.Command, args []string) (*commitPlan, error) {
	p := &commitPlan{container: args[0], quiet: f.quiet, rm: f.rm}
	p.engine.Store = a.global.store()
	p.files.iid = resultFile{"iidfile", f.iidFile}
	p.files.metadata = resultFile{"metadata-file", f.metadataFile}
	for _, step := range []func() error{
		func() error { return f.planName(cmd, p, args) },
		func() (err error) { p.engine.Transport, err = f.registry.options(cmd, true); return err },
		func() error { return f.planTimes(p) },
		func() error { return f.planContent(p) },
		func() (err error) { p.change.sboms, err = f.sbom.options(f.sbom.preset); return err },
		func() error { return f.planPush(cmd, p) },
		func() error { return errors.Join(p.files.iid.check(), p.files.metadata.check()) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (f *commitFlags) planName(cmd *cobra.Command, p *commitPlan, args []string) (err error) {
	if p.commit.Format, err = define.ParseFormat(f.format); err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	p.formatGiven = cmd.Flags().Changed("format")
	if f.manifest != "" {
		if p.list, err = transport.NormalizeTag(f.manifest); err != nil {
			return fmt.Errorf("--manifest: %w", err)
		}
		if len(args) > 1 && transport.IsTransport(args[1]) {
			return fmt.Errorf("--manifest %s: the list is of images of the store, not of %s: %w", f.manifest, args[1], define.ErrInvalid)
		}
	}
	p.commit.SquashAll = f.squash
	if len(args) < 2 {
		return nil
	}
	if transport.IsTransport(args[1]) {
		p.destination = args[1]
		return nil
	}
	full, err := transport.NormalizeTag(args[1])
	p.commit.Names = []string{full}
	return err
}

func (f *commitFlags) planTimes(p *commitPlan) error {
	if f.omitTimestamp {
		if f.time.timestamp != "" {
			return fmt.Errorf("--omit-timestamp and --timestamp: want one or the other: %w", define.ErrInvalid)
		}
		f.time.timestamp = "0"
	}
	if f.referenceTime != "" {
		if f.time.timestamp != "" {
			return fmt.Errorf("--reference-time and --timestamp: want one or the other: %w", define.ErrInvalid)
		}
		info, err := os.Stat(f.referenceTime)
		if err != nil {
			return fmt.Errorf("--reference-time: %w", err)
		}
		f.time.timestamp = strconv.FormatInt(info.ModTime().Unix(), 10)
	}
	timestamp, epoch, err := f.time.options()
	if err != nil {
		return err
	}
	if f.rewriteTimestamp {
		if epoch == nil {
			return fmt.Errorf("--rewrite-timestamp wants --source-date-epoch: %w", define.ErrInvalid)
		}
		p.commit.Layer.Clamp = epoch
	}
	p.commit.Layer.Timestamp = timestamp
	if p.commit.Created = timestamp; timestamp == nil {
		p.commit.Created = epoch
	}
	if p.commit.Created == nil && f.createdAnnotation {
		now := time.Now().UTC()
		p.commit.Created = &now
	}
	if f.createdAnnotation {
		p.change.annotations = append(p.change.annotations, "org.opencontainers.image.created="+p.commit.Created.Format(time.RFC3339Nano))
	}
	p.change.layer = p.commit.Layer
	return nil
}

// planContent is about what the image has besides the container.
func (f *commitFlags) planContent(p *commitPlan) error {
	for _, kv := range f.annotations {
		if k, _, ok := strings.Cut(kv, "="); k == "" || !ok {
			return fmt.Errorf("--annotation %q: want key=value: %w", kv, define.ErrInvalid)
		}
	}
	c := &p.change
	c.annotations = append(c.annotations, f.annotations...)
	c.unsetAnnotations, c.unsetEnv, c.instructions = f.unsetAnnotations, f.unsetEnv, f.changes
	c.omitHistory = f.omitHistory
	if f.identityLabel {
		c.identity = version().Version
	}
	if f.configFile != "" {
		over, err := readConfigFile(f.configFile)
		if err != nil {
			return fmt.Errorf("--config %s: %w", f.configFile, err)
		}
		c.config = over
	}
	for _, spec := range f.addFiles {
		source, dest, given := strings.Cut(spec, ":")
		if !given {
			dest = source
		}
		if source == "" || dest == "" || strings.HasSuffix(dest, "/") {
			return fmt.Errorf("--add-file %q: want source:destination, both of them files: %w", spec, define.ErrInvalid)
		}
		info, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("--add-file: %w", err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("--add-file %q: %s is not a regular file: %w", spec, source, define.ErrInvalid)
		}
		c.files = append(c.files, addedFile{source, path.Join("/", dest)})
	}
	return nil
}

// planPush is about layers that are written elsewhere.
func (f *commitFlags) planPush(cmd *cobra.Command, p *commitPlan) error {
	push := pushFlags{compression: f.compressionFormat, level: f.compressionLevel, format: f.format, encrypt: f.encrypt}
	if len(f.encrypt.keys) > 0 && (p.destination == "" || strings.HasPrefix(p.destination, "containers-storage:")) {
		return fmt.Errorf("--encryption-key: the store holds no encrypted layers: name a destination with a transport, such as docker:// or oci-archive:, or push with this flag: %w", define.ErrInvalid)
	}
	if push.compression == "" && (f.forceCompression || !f.disableCompression) {
		push.compression = "gzip"
	}
	o, err := push.options(cmd)
	if p.destination != "" && strings.HasPrefix(p.destination, "docker-archive:") {
		if p.commit.Format == define.FormatOCI && !cmd.Flags().Changed("format") {
			o.Format = "" // an archive of docker's is of docker's format
		}
	}
	p.push = o
	return err
}

// commitChange is what an image gets that its container does not have.
type commitChange struct {
	annotations, unsetAnnotations, unsetEnv, instructions []string
	identity                                              string
	config                                                *configOverride
	omitHistory                                           bool
	files                                                 []addedFile
	sboms                                                 []imagebuildah.SBOM
	layer                                                 layer.FreezeOptions
}

type addedFile struct{ source, dest string }
