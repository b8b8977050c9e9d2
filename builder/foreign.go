package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/stratabuild/strata/builder/binfmt"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// CanRun returns why steps for the platform cannot run on this machine, nil
// when they can: natively, or through an emulator that is registered with the
// kernel. Errors wrap define.ErrUnsupported.
func (e *Engine) CanRun(ctx context.Context, p define.Platform) error {
	_, err := e.emulator(ctx, p)
	return err
}

// emulator returns what executes programs of the platform, nil when the
// machine itself does. It is looked for once for each platform.
func (e *Engine) emulator(ctx context.Context, p define.Platform) (*binfmt.Handler, error) {
	if binfmt.Native(p) {
		return nil, nil
	}
	type answer struct {
		h   *binfmt.Handler
		err error
	}
	key := define.FormatPlatform(p)
	if a, ok := e.emulators.Load(key); ok {
		return a.(answer).h, a.(answer).err
	}
	tmp, err := e.PrivateDir(ctx)
	if err != nil {
		return nil, err
	}
	h, err := binfmt.Find(p, tmp)
	if _, again := e.emulators.LoadOrStore(key, answer{h, err}); !again && h != nil && !h.Fixed && h.Interpreter == "" {
		define.Emit(e.opts.Listener, define.Event{Kind: define.EventWarning, Text: fmt.Sprintf(
			"the emulator for %s is registered without the flag F, or is not static: it has to be in the image; qemu-user-static needs not", key)})
	}
	return h, err
}

// CheckEmulator looks for an emulator that the kernel has to find in the
// step's root, since it was registered without the flag F.
func (c *Container) CheckEmulator(ctx context.Context) error {
	h, err := c.engine.emulator(ctx, c.Image.Platform)
	if err != nil || h == nil || h.Fixed || h.Interpreter == "" {
		return err
	}
	return c.View(ctx, func(root *copier.Root) error {
		_, err := root.Stat(h.Interpreter, true)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the emulator %s is registered without the flag F, so that %s would have to be in the image: install qemu-user-static, which sets the flag, or copy it there: %w",
				h.Name, h.Interpreter, define.ErrUnsupported)
		}
		return err
	})
}
