package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

func newManifestCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifest command",
		Short: "Make and change lists of images",
		Long: `Make and change lists of images (OCI image indexes, Docker manifest lists): one
name for the images of several platforms. strata build --platform makes them
at once; these commands put together what was built one by one.`,
		Example: `  strata manifest create hello hello-amd64 hello-arm64
  strata manifest inspect hello
  strata manifest push hello docker://registry.example/team/hello:1`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newManifestAdd(a), newManifestAnnotate(a), newManifestCreate(a), newManifestExists(a),
		newManifestInspect(a), newManifestPush(a), newManifestRemove(a), newManifestRm(a))
	return cmd
}

// errAbsent is the answer "no", which is a status and no message.
type errAbsent struct{ error }

func (e *errAbsent) Unwrap() error { return e.error }

// exitAbsent is the status of "manifest exists" when there is none.
const exitAbsent = 1

func newManifestExists(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "exists list",
		Short:   "Tell by the exit status whether a list of images exists",
		Long:    "Exit with 0 when the store has a list of images of the name, with 1 when it has not.",
		Example: `  strata manifest exists hello || strata manifest create hello`,
		Args:    wantArgs(1, 1, "a list of images"),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			local, err := engine.Transport().FindEntry(args[0])
			if err == nil {
				err = wantList(engine, local, args[0])
			}
			if isAny(err, define.ErrNotFound, define.ErrInvalid) {
				return &errAbsent{err}
			}
			return err
		},
	}
}

func newManifestInspect(a *app) *cobra.Command {
	var access registryFlags
	cmd := &cobra.Command{
		Use:   "inspect [flags] list",
		Short: "Print a list of images as JSON",
		Long: `Print a list of images as JSON: the store's, or else the one that a registry,
layout or archive has under the name. Of a single image elsewhere the manifest
is printed.`,
		Example: `  strata manifest inspect hello
  strata manifest inspect docker://registry.example/team/hello:1`,
		Args:              wantArgs(1, 1, "a list of images"),
		ValidArgsFunction: a.completeImages(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := access.options(cmd, true)
			if err != nil {
				return err
			}
			if err := a.enter(false); err != nil {
				return err
			}
			engine, err := a.openEngine(cmd.Context(), builder.Options{Store: a.global.store(), Transport: options})
			if err != nil {
				return err
			}
			data, err := inspectList(cmd.Context(), engine, args[0])
			if err != nil {
				return err
			}
			return a.printJSON(json.RawMessage(data))
		},
	}
	access.add(cmd)
	access.addInsecure(cmd)
	return cmd
}

func inspectList(ctx context.Context, e *builder.Engine, name string) ([]byte, error) {
	local, err := e.Transport().FindEntry(name)
	if err == nil {
		stored, err := image.Load(e.Store(), local.ID)
		if err != nil {
			return nil, err
		}
		if image.IsIndex(stored.MediaType) {
			return stored.Manifest, nil
		}
		if !transport.IsTransport(name) && (local.Name == "" || strings.HasPrefix(local.Name, "localhost/")) {
			return nil, wantList(e, local, name)
		}
	} else if !isAny(err, define.ErrNotFound) {
		return nil, err
	}
	data, _, err := e.Transport().Manifest(ctx, name)
	return data, err
}

func newManifestRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rm list...",
		Short: "Remove lists of images",
		Long: `Remove lists of images from the store. Their images stay; those without a name
of their own are what strata prune removes next.

When some of several lists cannot be removed, the others are, and the exit
status is 125.`,
		Example:           `  strata manifest rm hello`,
		Args:              wantArgs(1, -1, "lists of images"),
		ValidArgsFunction: a.completeImages(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			var failed []error
			for _, name := range args {
				local, err := findList(engine, name)
				if err == nil {
					var removed imagestore.Removed
					removed, err = imagestore.Remove(engine.Store(), imagestore.Target{ID: local.ID}, true)
					a.printRemoved(removed)
				}
				failed = append(failed, err)
			}
			return errors.Join(failed...)
		},
	}
}

func newManifestRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "remove list image",
		Short:             "Take an image off a list of images",
		Long:              "Take an image, named by its digest, name or ID, off a list of images. The image\nitself stays in the store.",
		Example:           `  strata manifest remove hello sha256:1f3c9a2b4d5e...`,
		Args:              wantArgs(2, 2, "a list of images and an image of it"),
		ValidArgsFunction: a.completeImages(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			return a.changeEntry(cmd.Context(), engine, args[0], args[1], func(l *manifest.List, d digest.Digest) error { return l.Remove(d) })
		},
	}
}

func newManifestPush(a *app) *cobra.Command {
	var flags pushFlags
	cmd := &cobra.Command{
		Use:   "push [flags] list [destination]",
		Short: "Write a list of images, with its images, elsewhere",
		Long: `Write a list of images and all its images to a registry (docker://, or no
transport at all), an OCI layout (oci:), an OCI archive (oci-archive:) or a
directory (dir:). Without a destination the list's own name says where.`,
		Example: `  strata manifest push hello docker://registry.example/team/hello:1
  strata manifest push --add-compression zstd hello registry.example/team/hello:1
  strata manifest push --rm --digestfile hello.digest hello registry.example/team/hello:1`,
		Args:              wantArgs(1, 2, "a list of images and at most one destination"),
		ValidArgsFunction: a.completeImages(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.list = true
			return runPush(a, cmd, &flags, args)
		},
	}
	flags.add(cmd)
	flags.registry.addInsecure(cmd)
	cmd.Flags().StringArrayVar(&flags.addCompression, "add-compression", nil, "add to the list, for each image, another one with layers in this `format`: gzip or zstd; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("add-compression", fixedValues("gzip", "zstd"))
	return cmd
}

// isAny reports an error of one of the kinds.
func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// findList finds a list of images by name or ID.
func findList(e *builder.Engine, name string) (transport.Local, error) {
	local, err := e.Transport().FindEntry(name)
	if err == nil {
		err = wantList(e, local, name)
	}
	return local, err
}

// findDigest is the digest that a word names: itself, or that of an image of
// the store.
func findDigest(e *builder.Engine, l *manifest.List, word string) (digest.Digest, error) {
	if d, err := digest.Parse(word); err == nil {
		if slices.ContainsFunc(l.Entries(), func(entry manifest.Entry) bool { return entry.Digest == d }) {
			return d, nil
		}
	}
	local, err := e.Transport().FindLocal(word, define.Platform{})
	if err != nil {
		if d, derr := digest.Parse(word); derr == nil {
			_, err = l.Entry(d)
		} else if errors.Is(err, define.ErrNotFound) {
			err = fmt.Errorf("%q: neither an image of the store nor the digest of one of the list: strata manifest inspect shows those: %w", word, define.ErrNotFound)
		}
		return "", err
	}
	stored, err := image.Load(e.Store(), local.ID)
	if err != nil {
		return "", err
	}
	return stored.Descriptor().Digest, nil
}

// changeEntry changes a list as regards one of its images and prints both.
func (a *app) changeEntry(ctx context.Context, e *builder.Engine, list, word string, change func(*manifest.List, digest.Digest) error) error {
	local, err := findList(e, list)
	if err != nil {
		return err
	}
	var d digest.Digest
	err = manifest.Update(ctx, e.Store(), local.ID, func(l *manifest.List) error {
		if d, err = findDigest(e, l, word); err != nil {
			return err
		}
		return change(l, d)
	})
	if err != nil {
		return err
	}
	a.println(fmt.Sprintf("%s: %s", local.ID, d))
	return nil
}
