package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/chroot"
	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/isolation/ocirun"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// Options chooses the parts of an Engine. The zero value is what a user
// without flags gets.
type Options struct {
	Store     store.Options
	Transport transport.Options
	// Isolation is "" or "default" (the strongest that works here),
	// "embedded", "oci", "rootless" (oci as buildah spells it) or "chroot".
	Isolation string
	// Runtime is the OCI runtime's path for "oci"; "" looks for one.
	Runtime      string
	RuntimeFlags []string
	// Listener is told of events; nil is silence.
	Listener define.Listener
	// Rootless: the process is in a user namespace of its own; SingleID: one
	// that maps one id.
	Rootless, SingleID bool
	// CgroupManager makes the groups of steps that have limits, one of
	// cgroup's managers; "" is whoever can.
	CgroupManager string
	// OneStep: at most one step will run, so that nothing is started ahead of
	// the next one.
	OneStep bool
	// PID is the number that this process is known by to the user, named to
	// others that want the same container; 0: os.Getpid.
	PID int
}

// Engine holds the parts that a process opens once. It is safe for
// concurrent use.
type Engine struct {
	opts      Options
	store     *store.Store
	transport *transport.Client
	cache     *cache.Cache

	driverOnce sync.Once
	driver     isolation.Driver
	driverErr  error
	prepared   sync.WaitGroup

	filesOnce sync.Once
	files     *store.Workspace // of PrivateDir; nil until it is asked for

	emulators sync.Map // by platform: what emulator found out
	temp      string   // PrivateDir where there is no store

	networks networks
	idMaps   idMaps

	ownersOnce sync.Once // a warning
}

// Open opens the store and what goes with it. No registry is contacted and
// no isolation is chosen before it is needed.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if err := checkIsolation(o.Isolation); err != nil {
		return nil, err
	}
	o.Store.SingleID = o.Store.SingleID || o.SingleID
	st, err := store.Open(ctx, o.Store)
	if err != nil {
		return nil, err
	}
	c, err := cache.Open(st)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	o.Transport.Layer = func(id define.LayerID) (io.ReadCloser, error) { return layer.Stream(st, id) }
	return &Engine{opts: o, store: st, cache: c, transport: transport.New(st, o.Transport, o.Listener)}, nil
}

// Close ends what the engine keeps running and releases the store.
func (e *Engine) Close() error {
	e.prepared.Wait()
	e.networks.release()
	var err error
	if e.driver != nil {
		err = e.driver.Close()
	}
	err = errors.Join(err, e.networks.close())
	e.idMaps.close()
	if e.files != nil {
		err = errors.Join(err, e.files.Close())
	}
	return errors.Join(err, e.cache.Close(), e.store.Close())
}

// Store is the engine's store.
func (e *Engine) Store() *store.Store { return e.store }

// Transport moves images in and out of the store.
func (e *Engine) Transport() *transport.Client { return e.transport }

// Cache is the store's build cache.
func (e *Engine) Cache() *cache.Cache { return e.cache }

// Listener is where events go; it may be nil.
func (e *Engine) Listener() define.Listener { return e.opts.Listener }

// Rootless reports whether ids are those of a user namespace.
func (e *Engine) Rootless() bool { return e.opts.Rootless }

// SingleID reports a user namespace that maps one id only.
func (e *Engine) SingleID() bool { return e.opts.SingleID }

// PruneMounts removes the cache directories of RUN --mount=type=cache that no
// step uses and none has used for olderThan; 0 is all of them.
func (e *Engine) PruneMounts(ctx context.Context, olderThan time.Duration) (runmount.Pruned, error) {
	return runmount.Prune(ctx, e.store, olderThan)
}

// isolationNames are the values of --isolation.
var isolationNames = []string{"default", "embedded", "oci", "rootless", "chroot"}

func checkIsolation(name string) error {
	if name == "" {
		return nil
	}
	for _, n := range isolationNames {
		if n == name {
			return nil
		}
	}
	return fmt.Errorf("isolation %q: want one of %s: %w", name, strings.Join(isolationNames, ", "), define.ErrInvalid)
}

// Driver returns the isolation that steps run in, chosen at the first call:
// the one asked for, which must then work, or the strongest that works here.
// A lesser choice is said once, as a note.
func (e *Engine) Driver(ctx context.Context) (isolation.Driver, error) {
	e.driverOnce.Do(func() { e.driver, e.driverErr = e.chooseDriver(ctx) })
	return e.driver, e.driverErr
}

// Prepare begins what Driver does, and what the first step will wait for, in
// the background.
func (e *Engine) Prepare(ctx context.Context) {
	e.prepared.Go(func() {
		d, err := e.Driver(ctx)
		if p, ok := d.(interface{ Prepare() }); ok && err == nil {
			p.Prepare()
		}
	})
}

func (e *Engine) chooseDriver(ctx context.Context) (isolation.Driver, error) {
	newEmbedded := func() (isolation.Driver, error) { return embedded.New(embedded.Options{Ahead: !e.opts.OneStep}) }
	newOCI := func() (isolation.Driver, error) {
		temp, err := e.PrivateDir(ctx)
		if err != nil {
			return nil, err
		}
		return ocirun.New(ocirun.Options{Runtime: e.opts.Runtime, Flags: e.opts.RuntimeFlags, TempDir: temp})
	}
	newChroot := func() (isolation.Driver, error) {
		temp, err := e.PrivateDir(ctx)
		if err != nil {
			return nil, err
		}
		return chroot.New(chroot.Options{TempDir: temp})
	}
	switch e.opts.Isolation {
	case "embedded":
		return firstAvailable(ctx, newEmbedded)
	case "oci", "rootless":
		return firstAvailable(ctx, newOCI)
	case "chroot":
		return firstAvailable(ctx, newChroot)
	}
	if e.opts.Runtime != "" {
		return firstAvailable(ctx, newOCI)
	}
	d, err := firstAvailable(ctx, newEmbedded)
	if err == nil {
		return d, nil
	}
	for _, lesser := range []struct {
		what string
		make func() (isolation.Driver, error)
	}{
		{"see the processes around them", func() (isolation.Driver, error) {
			return embedded.New(embedded.Options{Ahead: !e.opts.OneStep, SharedPID: true})
		}},
		{"run with chroot isolation, the weaker kind", newChroot},
	} {
		d, err2 := firstAvailable(ctx, lesser.make)
		if err2 == nil {
			define.Emit(e.opts.Listener, define.Event{Kind: define.EventNote, Text: fmt.Sprintf("steps %s: %v", lesser.what, err)})
			return d, nil
		}
		if !strings.Contains(err.Error(), err2.Error()) {
			err = fmt.Errorf("%w; %w", err, err2)
		}
	}
	return nil, err
}

// PrivateDir returns a directory of mode 0700 for temporary files that are not
// layers. Close removes it; should the process be killed, the next build
// sweeps it, where the machine's temporary directory would keep it.
func (e *Engine) PrivateDir(ctx context.Context) (string, error) {
	if e.store == nil {
		return e.temp, nil
	}
	e.filesOnce.Do(func() { e.files = e.store.NewWorkspace() })
	return e.files.Private(ctx)
}

func firstAvailable(ctx context.Context, make func() (isolation.Driver, error)) (isolation.Driver, error) {
	d, err := make()
	if err != nil {
		return nil, err
	}
	if err := d.Available(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}
