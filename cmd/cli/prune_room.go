package cli

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// cacheRoom is how much of the build cache prune leaves, in bytes; 0 is not
// given. The words are buildx's.
type cacheRoom struct{ maxUsed, reserved, minFree int64 }

func (r cacheRoom) bounded() bool { return r != cacheRoom{} }

func (f *pruneFlags) room() (r cacheRoom, err error) {
	for _, size := range []struct {
		flag, text string
		into       *int64
	}{
		{"max-used-space", f.maxUsed, &r.maxUsed}, {"reserved-space", f.reserved, &r.reserved}, {"min-free-space", f.minimumFree, &r.minFree},
	} {
		if size.text == "" {
			continue
		}
		// "20GB" is decimal and "20GiB" binary, as everywhere in listings.
		n, err := units.FromHumanSize(size.text)
		if len(size.text) > 2 && size.text[len(size.text)-2] == 'i' {
			n, err = units.RAMInBytes(size.text)
		}
		if err != nil || n < 0 {
			return r, fmt.Errorf("--%s %q: want a size such as 500MB or 20GiB: %w", size.flag, size.text, define.ErrInvalid)
		}
		*size.into = n
	}
	return r, nil
}

// bytes is how much of the cache may stay: what is allowed, less what the
// disk lacks, but not less than what is reserved.
func (r cacheRoom) bytes(ctx context.Context, e *builder.Engine) (int64, error) {
	keep := r.maxUsed
	if r.minFree > 0 {
		var disk unix.Statfs_t
		if err := unix.Statfs(e.Store().Raw().GraphRoot(), &disk); err != nil {
			return 0, fmt.Errorf("--min-free-space: the store's disk: %w", err)
		}
		all, err := e.Cache().Prune(ctx, cache.PruneOptions{DryRun: true})
		if err != nil {
			return 0, err
		}
		room := all.Bytes
		if lacking := r.minFree - int64(disk.Bavail)*disk.Bsize; lacking > 0 {
			room = max(all.Bytes-lacking, 0)
		}
		if r.maxUsed == 0 || room < keep {
			keep = room
		}
	}
	return max(keep, r.reserved), nil
}
