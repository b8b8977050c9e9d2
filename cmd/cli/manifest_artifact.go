package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/define"
)

// artifactFlags make an artifact of files.
type artifactFlags struct {
	artifact, noTitles                           bool
	annotations                                  []string
	config, configType, layerType, subject, kind string
}

func (f *artifactFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.artifact, "artifact", false, "add files, as an artifact, instead of an image; they are read again when the list is pushed")
	fs.StringSliceVar(&f.annotations, "artifact-annotation", nil, "set an annotation of the artifact's manifest, as `key=value`")
	fs.StringVar(&f.config, "artifact-config", "", "the content of the artifact's config is that of this `file` (default: an empty object)")
	fs.StringVar(&f.configType, "artifact-config-type", v1.MediaTypeEmptyJSON, "the config's media `type`")
	fs.BoolVar(&f.noTitles, "artifact-exclude-titles", false, "leave the names of the files out")
	fs.StringVar(&f.layerType, "artifact-layer-type", "", "the files' media `type` (default: found by their contents)")
	fs.StringVar(&f.subject, "artifact-subject", "", "the artifact is about this `image`")
	fs.StringVar(&f.kind, "artifact-type", "", "the `type` of the artifact (default: "+manifest.DefaultArtifactType+")")
	_ = cmd.MarkFlagFilename("artifact-config")
}

// options checks the flags; nil is an image.
func (f *artifactFlags) options(cmd *cobra.Command, files []string) (*manifest.Artifact, error) {
	if !f.artifact {
		for _, name := range []string{"annotation", "config", "config-type", "exclude-titles", "layer-type", "subject", "type"} {
			if cmd.Flags().Changed("artifact-" + name) {
				return nil, fmt.Errorf("--artifact-%s wants --artifact: %w", name, define.ErrInvalid)
			}
		}
		return nil, nil
	}
	if cmd.Flags().Changed("all") {
		return nil, fmt.Errorf("--all and --artifact: want one or the other: %w", define.ErrInvalid)
	}
	a := &manifest.Artifact{Type: f.kind, ConfigType: f.configType, LayerType: f.layerType, NoTitles: f.noTitles, Files: files}
	for _, t := range []string{f.kind, f.configType, f.layerType} {
		if len(t) > 255 {
			return nil, fmt.Errorf("media type %.40s...: has more than 255 letters: %w", t, define.ErrInvalid)
		}
	}
	var err error
	if a.Annotations, err = annotationMap(f.annotations); err != nil {
		return nil, fmt.Errorf("--artifact%w", err)
	}
	if f.config == "" {
		return a, nil
	}
	file, err := os.Open(f.config)
	if err != nil {
		return nil, fmt.Errorf("--artifact-config: %w", err)
	}
	defer file.Close()
	a.Config, err = io.ReadAll(io.LimitReader(file, image.MaxDocument))
	if err == nil && len(a.Config) == image.MaxDocument {
		err = fmt.Errorf("%s has %d bytes or more: %w", f.config, image.MaxDocument, define.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("--artifact-config: %w", err)
	}
	return a, nil
}

// findSubject describes the manifest of an image, of the store or elsewhere.
func (f *artifactFlags) findSubject(ctx context.Context, e *builder.Engine) (*v1.Descriptor, error) {
	if f.subject == "" {
		return nil, nil
	}
	local, err := e.Transport().FindEntry(f.subject)
	if err == nil {
		stored, err := image.Load(e.Store(), local.ID)
		if err != nil {
			return nil, err
		}
		return &v1.Descriptor{MediaType: stored.MediaType, Digest: stored.Digest, Size: int64(len(stored.Manifest))}, nil
	}
	if !errors.Is(err, define.ErrNotFound) && !isAny(err, define.ErrInvalid) {
		return nil, err
	}
	data, mediaType, err := e.Transport().Manifest(ctx, f.subject)
	if err != nil {
		return nil, fmt.Errorf("--artifact-subject: %w", err)
	}
	return &v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}

func (a *app) addArtifact(ctx context.Context, e *builder.Engine, list define.ImageID, artifact manifest.Artifact, f *artifactFlags, entry *entryFlags, annotations map[string]string) (err error) {
	if artifact.Subject, err = f.findSubject(ctx, e); err != nil {
		return err
	}
	var added digest.Digest
	err = manifest.Update(ctx, e.Store(), list, func(l *manifest.List) error {
		made, err := l.AddArtifact(artifact)
		if err != nil {
			return err
		}
		entry.describe(made, annotations)
		added = made.Digest
		return nil
	})
	if err != nil {
		return err
	}
	a.closeDisplay()
	a.println(fmt.Sprintf("%s: %s", list, added))
	return nil
}

// describe changes the entry of an artifact, which has no platform unless one
// is given.
func (f *entryFlags) describe(e *manifest.Entry, annotations map[string]string) {
	f.apply(e, annotations)
	if p := e.Platform; p.OS+p.Architecture+p.Variant+p.OSVersion == "" && len(p.OSFeatures)+len(p.Features) == 0 {
		e.Platform = nil
	}
}
