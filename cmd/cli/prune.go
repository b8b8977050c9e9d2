package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

// pruneKeys are the filters of prune.
var pruneKeys = []string{"until", "label"}

type pruneFlags struct {
	all, force, verbose            bool
	filters                        []string
	maxUsed, reserved, minimumFree string
	keep                           cacheRoom
}

func newPruneCommand(a *app) *cobra.Command {
	var flags pruneFlags
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove what is not needed: images without a name, the build cache",
		Long: `Remove the images that have no name, the layers that only the build cache holds,
the directories of cache mounts (RUN --mount=type=cache) that no step uses, and
what killed builds have left; say how many bytes that frees. With --all,
images with names go too, unless a container uses them.

Filters: until=TIME keeps what was made or used since; label=KEY[=VALUE] removes
images with that label only, and leaves the cache alone.

With --max-used-space, --reserved-space or --min-free-space the layers of the
cache that were used last stay, as many as there is room for, and so do the
directories of cache mounts. Sizes are bytes, or have a unit: 500MB, 20GiB.`,
		Example: `  strata prune
  strata prune --filter until=168h
  strata prune --all
  strata prune --max-used-space 20GB`,
		Args: wantArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return runPrune(a, cmd, flags) },
	}
	fs := cmd.Flags()
	fs.BoolVarP(&flags.all, "all", "a", false, "remove named images that no container uses as well")
	fs.BoolVarP(&flags.force, "force", "f", false, "remove the containers that use an image as well")
	fs.StringVar(&flags.maxUsed, "max-used-space", "", "keep this `size` of the build cache at most")
	fs.StringVar(&flags.minimumFree, "min-free-space", "", "remove as much of the build cache as leaves this `size` free on the store's disk")
	fs.StringVar(&flags.reserved, "reserved-space", "", "keep this `size` of the build cache in any case")
	fs.BoolVar(&flags.verbose, "verbose", false, "print the IDs of the layers that are removed")
	fs.StringSliceVar(&flags.filters, "filter", nil, "remove only what a `condition` (key=value) holds for")
	return cmd
}

func runPrune(a *app, cmd *cobra.Command, flags pruneFlags) error {
	filters, err := imagestore.ParseFilters(flags.filters, pruneKeys)
	if err != nil {
		return err
	}
	room, err := flags.room()
	if err != nil {
		return err
	}
	engine, err := a.openStore(cmd.Context())
	if err != nil {
		return err
	}
	flags.keep = room
	// First: a container that is finished holds its image.
	swept, err := engine.SweepContainers(cmd.Context())
	if len(swept) > 0 {
		a.println("containers that were half made or half removed: " + strings.Join(swept, ", "))
	}
	freed, pruneErr := prune(cmd.Context(), a, engine, flags, filters)
	a.println("freed: " + sizeText(max(freed, 0)))
	return errors.Join(err, pruneErr)
}

// prune removes the cache's own layers, then images, then what only the cache
// has held since: a base image's layers can go with the image only when no
// layer of the cache stands on them any more.
func prune(ctx context.Context, a *app, e *builder.Engine, flags pruneFlags, filters imagestore.Filters) (freed int64, err error) {
	withCache := len(filters["label"]) == 0
	var total cache.Pruned
	pruneCache := func() error {
		if !withCache {
			return nil
		}
		o, err := cachePrune(filters)
		if err == nil {
			o.KeepBytes, err = flags.keep.bytes(ctx, e)
		}
		if err != nil {
			return err
		}
		p, err := e.Cache().Prune(ctx, o)
		total.Records += p.Records
		total.Layers = append(total.Layers, p.Layers...)
		total.Bytes += p.Bytes
		return err
	}
	failed := pruneCache()
	before, err := imagestore.LayerBytes(e.Store())
	if err != nil {
		return total.Bytes, errors.Join(failed, err)
	}
	failed = errors.Join(failed, pruneImages(ctx, a, e, flags, filters))
	after, err := imagestore.LayerBytes(e.Store())
	if err != nil {
		return total.Bytes, errors.Join(failed, err)
	}
	failed = errors.Join(failed, pruneCache())
	freed = before - after + total.Bytes
	if total.Records+len(total.Layers) > 0 {
		a.println(fmt.Sprintf("build cache: %d records and %d layers", total.Records, len(total.Layers)))
	}
	if flags.verbose {
		for _, id := range total.Layers {
			a.println("layer: " + string(id))
		}
	}
	if withCache && !flags.keep.bounded() {
		mounts, bytes, err := pruneMounts(ctx, e, filters)
		failed = errors.Join(failed, err)
		freed += bytes
		if mounts > 0 {
			a.println(fmt.Sprintf("cache mounts: %d", mounts))
		}
		containers, err := e.SweepScripts(ctx)
		failed = errors.Join(failed, err)
		if len(containers) > 0 {
			a.println("containers of scripts that died: " + strings.Join(containers, ", "))
		}
		swept, err := e.Store().Sweep(ctx)
		failed = errors.Join(failed, err)
		freed += swept.Bytes
		if swept.Workspaces > 0 {
			a.println(fmt.Sprintf("leftovers of %d ended builds", swept.Workspaces))
		}
	}
	return freed, failed
}

// cachePrune is what until= means for the cache.
func cachePrune(filters imagestore.Filters) (cache.PruneOptions, error) {
	var o cache.PruneOptions
	if u := filters["until"]; len(u) > 0 {
		now := time.Now()
		at, err := imagestore.ParseUntil(u[len(u)-1], now)
		if err != nil {
			return o, err
		}
		o.OlderThan = max(now.Sub(at), 1)
	}
	return o, nil
}

func pruneMounts(ctx context.Context, e *builder.Engine, filters imagestore.Filters) (caches int, bytes int64, err error) {
	o, err := cachePrune(filters)
	if err != nil {
		return 0, 0, err
	}
	p, err := e.PruneMounts(ctx, o.OlderThan)
	return p.Caches, p.Bytes, err
}

func pruneImages(ctx context.Context, a *app, e *builder.Engine, flags pruneFlags, filters imagestore.Filters) error {
	images, err := imagestore.List(e.Store())
	if err != nil {
		return err
	}
	images, err = imagestore.Select(e.Store(), images, filters, func(string) (define.ImageID, error) { return "", nil })
	if err != nil {
		return err
	}
	var failed []error
	for _, i := range images {
		if i.ReadOnly || !flags.all && !i.Dangling() {
			continue
		}
		removed, err := pruneImage(ctx, e, i.ImageID(), flags.force)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		a.printRemoved(removed)
	}
	return errors.Join(failed...)
}

// pruneImage removes an image, unless containers use it. A container that is
// just put on the image does not yet, and its process holds the lock.
func pruneImage(ctx context.Context, e *builder.Engine, id define.ImageID, force bool) (none imagestore.Removed, err error) {
	unlock, err := e.Store().Lock(ctx)
	if err != nil {
		return none, err
	}
	defer unlock()
	if !force {
		if used, err := imagestore.InUse(e.Store(), id); err != nil || used {
			return none, err
		}
	}
	removed, err := imagestore.Remove(e.Store(), imagestore.Target{ID: id}, true)
	if errors.Is(err, define.ErrNotFound) { // somebody else removed it
		return none, nil
	}
	return removed, err
}
