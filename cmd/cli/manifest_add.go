package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// entryFlags are what the entry of an image in a list says in place of what
// the image itself says.
type entryFlags struct {
	annotations, features, osFeatures []string
	os, osVersion, arch, variant      string
}

func (f *entryFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVar(&f.annotations, "annotation", nil, "set an annotation of the entry, as `key=value`")
	fs.StringVar(&f.os, "os", "", "the system that the entry says the image is for, instead of the image's; give its `name`")
	fs.StringVar(&f.osVersion, "os-version", "", "the `version` of the system")
	fs.StringSliceVar(&f.osFeatures, "os-features", nil, "the `features` of the system that the image needs")
	fs.StringVar(&f.arch, "arch", "", "the `architecture` that the entry says the image is for")
	fs.StringVar(&f.variant, "variant", "", "the `variant` of the architecture")
	fs.StringSliceVar(&f.features, "features", nil, "the `features` of the processor that the image needs")
}

// check reads the annotations and refuses platforms that do not exist.
func (f *entryFlags) check() (map[string]string, error) {
	host := define.HostPlatform()
	if err := knownPlatform("os or --arch", define.NormalizePlatform(define.Platform{OS: or(f.os, host.OS), Architecture: or(f.arch, host.Architecture)})); err != nil {
		return nil, err
	}
	return annotationMap(f.annotations)
}

func annotationMap(pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, kv := range pairs {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" || !ok {
			return nil, fmt.Errorf("--annotation %q: want key=value: %w", kv, define.ErrInvalid)
		}
		m[k] = v
	}
	return m, nil
}

// apply changes an entry.
func (f *entryFlags) apply(e *manifest.Entry, annotations map[string]string) {
	if e.Platform == nil {
		e.Platform = &manifest.Platform{}
	}
	set := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	set(&e.Platform.OS, f.os)
	set(&e.Platform.OSVersion, f.osVersion)
	set(&e.Platform.Variant, f.variant)
	if f.arch != "" {
		named := define.NormalizePlatform(define.Platform{OS: e.Platform.OS, Architecture: f.arch, Variant: f.variant})
		e.Platform.Architecture, e.Platform.Variant = named.Architecture, named.Variant
	}
	if len(f.osFeatures) > 0 {
		e.Platform.OSFeatures = f.osFeatures
	}
	if len(f.features) > 0 {
		e.Platform.Features = f.features
	}
	for k, v := range annotations {
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		e.Annotations[k] = v
	}
}

func newManifestCreate(a *app) *cobra.Command {
	var (
		access              registryFlags
		all, amend, replace bool
		pairs               []string
	)
	cmd := &cobra.Command{
		Use:   "create [flags] list [image...]",
		Short: "Make a list of images",
		Long: `Make a list of images, empty or with images, which are fetched when the store has
them not. Standard output gets the list's ID.`,
		Example: `  strata manifest create hello
  strata manifest create --replace hello hello-amd64 docker://registry.example/team/hello-arm64`,
		Args:              wantArgs(1, -1, "a name for the list"),
		ValidArgsFunction: a.completeImages(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if amend && replace {
				return fmt.Errorf("--amend and --replace: want one or the other: %w", define.ErrInvalid)
			}
			annotations, err := annotationMap(pairs)
			if err != nil {
				return err
			}
			name, err := transport.NormalizeTag(args[0])
			if err != nil {
				return err
			}
			engine, err := a.manifestEngine(cmd, &access)
			if err != nil {
				return err
			}
			images, err := gather(cmd.Context(), engine, args[1:], all)
			if err != nil {
				return err
			}
			id, err := createList(cmd.Context(), engine, name, images, annotations, amend, replace)
			if err != nil {
				return err
			}
			a.closeDisplay()
			a.println(id)
			return nil
		},
	}
	access.add(cmd)
	access.addInsecure(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&all, "all", false, "of an image that is itself a list, add all images instead of this machine's")
	fs.BoolVar(&amend, "amend", false, "add to the list of the name, if there is one")
	fs.BoolVar(&replace, "replace", false, "take the name from what has it")
	fs.StringSliceVar(&pairs, "annotation", nil, "set an annotation of the list, as `key=value`")
	return cmd
}

// manifestEngine opens the store for a command that may fetch images.
func (a *app) manifestEngine(cmd *cobra.Command, access *registryFlags) (*builder.Engine, error) {
	options, err := access.options(cmd, true)
	if err != nil {
		return nil, err
	}
	if err := a.enter(false); err != nil {
		return nil, err
	}
	a.startDisplay(quietMode(false))
	return a.openEngine(cmd.Context(), builder.Options{Store: a.global.store(), Transport: options, Listener: a.display})
}

// gather finds the images, fetching those that the store has not. All takes
// every image of a list.
func gather(ctx context.Context, e *builder.Engine, names []string, all bool) ([]define.ImageID, error) {
	var ids []define.ImageID
	for _, name := range names {
		if !all {
			l, err := e.Transport().Pull(ctx, name, define.Platform{}, define.PullMissing)
			if err != nil {
				return nil, err
			}
			ids = append(ids, l.ID)
			continue
		}
		local, err := e.Transport().FindEntry(name)
		if err == nil {
			members, err := e.Transport().Members(local.ID)
			if err != nil {
				return nil, err
			}
			ids = append(ids, members...)
			continue
		}
		if !errors.Is(err, define.ErrNotFound) && !transport.IsTransport(name) {
			return nil, err
		}
		pulled, err := e.Transport().PullAll(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, l := range pulled {
			ids = append(ids, l.ID)
		}
	}
	return ids, nil
}

func createList(ctx context.Context, e *builder.Engine, name string, images []define.ImageID, annotations map[string]string, amend, replace bool) (define.ImageID, error) {
	fill := func(l *manifest.List) error {
		if len(annotations) > 0 {
			l.Annotate(annotations)
		}
		for _, id := range images {
			if _, err := l.Add(id); err != nil {
				return err
			}
		}
		return nil
	}
	if amend {
		return manifest.UpdateNamed(ctx, e.Store(), name, fill)
	}
	if replace {
		if err := freeName(e, name); err != nil {
			return "", err
		}
	}
	l, err := manifest.Create(e.Store(), name)
	if err != nil {
		return "", err
	}
	if err := manifest.Update(ctx, e.Store(), l.ID, fill); err != nil {
		_, undo := e.Store().Raw().DeleteImage(string(l.ID), true)
		return "", errors.Join(err, undo)
	}
	return l.ID, nil
}

// freeName takes a name from what has it; a list that has no other name is
// removed.
func freeName(e *builder.Engine, name string) error {
	raw := e.Store().Raw()
	have, err := raw.Image(name)
	if err != nil {
		return nil // nothing has it
	}
	if stored, err := image.Load(e.Store(), define.ImageID(have.ID)); err == nil && image.IsIndex(stored.MediaType) && len(have.Names) == 1 {
		_, err := raw.DeleteImage(have.ID, true)
		return err
	}
	return raw.RemoveNames(have.ID, []string{name})
}

func newManifestAdd(a *app) *cobra.Command {
	var (
		access registryFlags
		entry  entryFlags
		all    bool
		files  artifactFlags
	)
	cmd := &cobra.Command{
		Use:   "add [flags] list image|file...",
		Short: "Add an image to a list of images",
		Long: `Add an image to a list of images of the store; it is fetched when the store has
it not. An image that the list has already is described anew. Standard output
gets the list's ID and the digest of the image's manifest, one line an image.

With --artifact, files become one entry of the list.`,
		Example: `  strata manifest add hello hello-arm64
  strata manifest add --arch arm --variant v7 hello docker://registry.example/team/hello-armv7
  strata manifest add --artifact --artifact-type application/vnd.example.report hello report.json`,
		Args:              wantArgs(2, -1, "a list of images and an image"),
		ValidArgsFunction: a.completeImages(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			annotations, err := entry.check()
			if err != nil {
				return err
			}
			artifact, err := files.options(cmd, args[1:])
			if err != nil {
				return err
			}
			if artifact == nil && len(args) > 2 {
				return fmt.Errorf("add: want a list of images and one image, or --artifact and files: %w", define.ErrInvalid)
			}
			engine, err := a.manifestEngine(cmd, &access)
			if err != nil {
				return err
			}
			local, err := findList(engine, args[0])
			if err != nil {
				return err
			}
			if artifact != nil {
				return a.addArtifact(cmd.Context(), engine, local.ID, *artifact, &files, &entry, annotations)
			}
			images, err := gather(cmd.Context(), engine, args[1:], all)
			if err != nil {
				return err
			}
			var added []digest.Digest
			err = manifest.Update(cmd.Context(), engine.Store(), local.ID, func(l *manifest.List) error {
				for _, id := range images {
					e, err := l.Add(id)
					if err != nil {
						return err
					}
					entry.apply(e, annotations)
					added = append(added, e.Digest)
				}
				return nil
			})
			if err != nil {
				return err
			}
			a.closeDisplay()
			for _, d := range added {
				a.println(fmt.Sprintf("%s: %s", local.ID, d))
			}
			return nil
		},
	}
	access.add(cmd)
	access.addInsecure(cmd)
	entry.add(cmd)
	files.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "of an image that is itself a list, add all images instead of this machine's")
	return cmd
}

func newManifestAnnotate(a *app) *cobra.Command {
	var (
		entry   entryFlags
		index   bool
		subject string
	)
	cmd := &cobra.Command{
		Use:   "annotate [flags] list [image]",
		Short: "Change what a list says of an image",
		Long: `Change what a list of images says of one of its images, which is named by its
digest, name or ID; with --index, annotate the list itself.`,
		Example: `  strata manifest annotate --variant v7 hello sha256:1f3c9a2b4d5e...
  strata manifest annotate --index --annotation org.opencontainers.image.version=1 hello`,
		Args:              wantArgs(1, 2, "a list of images and an image of it"),
		ValidArgsFunction: a.completeImages(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			annotations, err := entry.check()
			if err != nil {
				return err
			}
			ofList := index || subject != ""
			if ofList == (len(args) == 2) {
				return fmt.Errorf("annotate: want an image of the list, or --index or --subject for the list itself: %w", define.ErrInvalid)
			}
			if index && (entry.os+entry.osVersion+entry.arch+entry.variant != "" || len(entry.features)+len(entry.osFeatures) > 0) {
				return fmt.Errorf("--index: the list itself has no platform; only --annotation and --subject go with it: %w", define.ErrInvalid)
			}
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			if !ofList {
				return a.changeEntry(cmd.Context(), engine, args[0], args[1], func(l *manifest.List, d digest.Digest) error {
					e, err := l.Entry(d)
					if err == nil {
						entry.describe(e, annotations)
					}
					return err
				})
			}
			return a.annotateList(cmd.Context(), engine, args[0], annotations, subject)
		},
	}
	entry.add(cmd)
	fs := cmd.Flags()
	fs.BoolVar(&index, "index", false, "set annotations of the list itself")
	fs.StringVar(&subject, "subject", "", "make the list refer to this `image` of the store")
	return cmd
}

func (a *app) annotateList(ctx context.Context, e *builder.Engine, name string, annotations map[string]string, subject string) error {
	local, err := findList(e, name)
	if err != nil {
		return err
	}
	var about *image.Stored
	if subject != "" {
		found, err := e.Transport().FindEntry(subject)
		if err != nil {
			return fmt.Errorf("--subject: %w", err)
		}
		if about, err = image.Load(e.Store(), found.ID); err != nil {
			return err
		}
	}
	err = manifest.Update(ctx, e.Store(), local.ID, func(l *manifest.List) error {
		if len(annotations) > 0 {
			l.Annotate(annotations)
		}
		if about != nil {
			l.SetSubject(about.Descriptor())
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.println(local.ID)
	return nil
}
