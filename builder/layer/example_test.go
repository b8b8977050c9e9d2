package layer_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// A build makes one layer on top of a base and goes on before it is stored.
func ExampleSpace() {
	build := func(ctx context.Context, st *store.Store, base define.LayerID, step func(root *os.File) error) (define.LayerID, error) {
		space := layer.NewSpace(st)
		defer space.Close()
		below, err := space.Open(ctx, base)
		if err != nil {
			return "", err
		}
		working, err := space.Begin(ctx, below, layer.BeginOptions{})
		if err != nil {
			return "", err
		}
		if err := step(working.Root()); err != nil {
			return "", errors.Join(err, working.Discard())
		}
		top, err := working.Freeze(ctx, layer.FreezeOptions{})
		if err != nil {
			return "", err
		}
		// The next step could Begin on top here, while the commit goes on.
		info, err := top.Wait(ctx)
		return info.ID, err
	}
	fmt.Println(build != nil)
	// Output: true
}
