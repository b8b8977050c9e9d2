package store

import (
	"context"
	"os"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Options chooses a store; the zero value is the one that podman would use
// (storage.conf, then the library's defaults for root or rootless).
type Options struct {
	Root, RunRoot string
	Driver        string
	DriverOptions []string // "overlay.key=value"
	// Mapped reports a user namespace with a full id range; when false and
	// the process is in one, chown errors of pulled layers are ignored.
	SingleID bool
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	raw storage.Store
}

// Open opens the store, creating it when it does not exist.
func Open(ctx context.Context, o Options) (*Store, error) { panic("store") }

// Close releases the store without unmounting what others use.
func (s *Store) Close() error { panic("store") }

// Raw is the containers/storage store.
func (s *Store) Raw() storage.Store { return s.raw }

// StateDir returns the directory below the graph root that is strata's own
// (the build cache's index, locks), made with mode 0700.
func (s *Store) StateDir() (string, error) { panic("store") }

// ZeroCopy reports whether a frozen upper directory can become a layer by
// rename; when not, the reason says why (driver, mount_program, composefs...).
func (s *Store) ZeroCopy() (ok bool, reason string) { panic("store") }

// Lock takes the lock under which layers are adopted.
func (s *Store) Lock(ctx context.Context) (unlock func(), err error) { panic("store") }

// Workspace is the scratch space of one build. A pin layer in the store holds
// it, named so that a later process can collect it once this one is dead.
type Workspace struct{ _ int }

// NewWorkspace makes a workspace. Nothing is written before the first Pin or
// Dir.
func (s *Store) NewWorkspace() *Workspace { panic("store") }

// Pin keeps the layer from being removed by anyone until Close.
func (w *Workspace) Pin(ctx context.Context, layer define.LayerID) error { panic("store") }

// Dir returns the scratch directory, on the mount of the store's driver.
func (w *Workspace) Dir(ctx context.Context) (path string, dir *os.File, err error) { panic("store") }

// Close removes the scratch directory and the pins.
func (w *Workspace) Close() error { panic("store") }

// Leftovers counts what a Sweep removed.
type Leftovers struct {
	Workspaces int
	Bytes      int64
}

// Sweep collects workspaces whose process is dead. It is cheap when there
// are none, and is run at the start of each build.
func (s *Store) Sweep(ctx context.Context) (Leftovers, error) { panic("store") }
