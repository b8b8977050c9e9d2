package ocirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// Options says which runtime to use.
type Options struct {
	// Runtime is a path, or a name that is looked for in PATH and in the usual
	// directories. "" takes the first of crun, runc, youki and runsc that is
	// installed and can run a step here.
	Runtime string
	// Flags go before the runtime's command, after the driver's own, with or
	// without their dashes. root=DIRECTORY is StateDir; what the runtime logs
	// is appended to FILE of log=FILE when the step has ended.
	Flags []string
	// StateDir is the runtime's state directory (--root), made when missing.
	// "" is a directory per step that goes with the step.
	StateDir string
	// TempDir is where the steps' private directories are made; "" is
	// os.TempDir().
	TempDir string

	log string // of Flags
}

// readFlags gives flags their dashes and takes out those whose files are ours.
func (o *Options) readFlags() error {
	var flags []string
	for _, f := range o.Flags {
		if strings.Trim(f, "-") == "" || strings.ContainsRune(f, 0) {
			return fmt.Errorf("runtime flag %q: want a flag such as debug: %w", f, define.ErrInvalid)
		}
		if f[0] != '-' {
			f = "--" + f
		}
		switch name, value, _ := strings.Cut(f, "="); {
		case (name == "--log" || name == "--root") && value == "":
			return fmt.Errorf("runtime flag %q: want %s=PATH: %w", f, name[2:], define.ErrInvalid)
		case name == "--log":
			o.log = value
		case name == "--root":
			o.StateDir = value
		default:
			flags = append(flags, f)
		}
	}
	o.Flags = flags
	return nil
}

// candidates are tried in this order when no runtime is named.
var candidates = [...]string{"crun", "runc", "youki", "runsc"}

// directories hold runtimes on some distribution though not in PATH.
var directories = [...]string{
	"/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin",
	"/usr/libexec/crio", "/usr/libexec/podman", "/usr/lib/podman", "/usr/lib/cri-o-runc/sbin", "/run/current-system/sw/bin",
}

// driver implements isolation.Driver.
type driver struct {
	o Options

	mu     sync.Mutex
	chosen *oci  // once one has been found
	reason error // why none was
}

// New returns a driver. Whether the runtime exists is not looked at yet, see
// Available.
func New(o Options) (isolation.Driver, error) {
	if err := o.readFlags(); err != nil {
		return nil, err
	}
	for _, p := range []*string{&o.StateDir, &o.TempDir, &o.log} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return nil, fmt.Errorf("path %s of the OCI runtime: %w", *p, err)
		}
		*p = abs
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	return &driver{o: o}, nil
}

// Name returns "oci".
func (d *driver) Name() string { return "oci" }

// Close has nothing to end.
func (d *driver) Close() error { return nil }

// Available looks for the runtime and has it run a step with an empty root,
// which gets as far as finding no program. The answer is kept.
func (d *driver) Available(ctx context.Context) error {
	_, err := d.choose(ctx, true)
	return err
}

// choose returns the runtime. A named one is not tried out for Run's sake:
// the step itself will show.
func (d *driver) choose(ctx context.Context, probe bool) (*oci, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chosen != nil && (d.chosen.probed || !probe) {
		return d.chosen, nil
	}
	if d.reason != nil {
		return nil, d.reason
	}
	if err := mayMount(); err != nil {
		return nil, err
	}
	names := candidates[:]
	if d.o.Runtime != "" {
		names = []string{d.o.Runtime}
	}
	var found []*oci
	for _, n := range names {
		if p := find(n); p != "" {
			found = append(found, newOCI(p, d.o))
		}
	}
	if len(found) == 0 {
		d.reason = notFound(d.o.Runtime)
		return nil, d.reason
	}
	if !probe && d.o.Runtime != "" {
		d.chosen = found[0]
		return d.chosen, nil
	}
	var failures []error
	for _, r := range found {
		err := r.probe(ctx)
		if err == nil {
			d.chosen = r
			return r, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failures = append(failures, fmt.Errorf("%s: %w", r.path, err))
	}
	d.reason = fmt.Errorf("no OCI runtime works here (%w); use --isolation with another driver: %w", oneLine(failures), define.ErrUnsupported)
	return nil, d.reason
}

func notFound(name string) error {
	switch {
	case strings.Contains(name, "/"): // a path, which is not searched for
		return fmt.Errorf("OCI runtime %s: no such program: name another with --runtime: %w", name, define.ErrNotFound)
	case name != "":
		return fmt.Errorf("OCI runtime %s: not found in PATH or %s: install it, or name another with --runtime: %w",
			name, strings.Join(directories[:], ", "), define.ErrNotFound)
	}
	return fmt.Errorf("no OCI runtime: none of %s is in PATH or %s: install crun or runc: %w",
		strings.Join(candidates[:], ", "), strings.Join(directories[:], ", "), define.ErrNotFound)
}

// find returns the absolute path of a runtime, or "".
func find(name string) string {
	if strings.Contains(name, "/") {
		if p, err := filepath.Abs(name); err == nil && executable(p) {
			return p
		}
		return ""
	}
	// LookPath refuses relative entries of PATH (exec.ErrDot), as we want.
	if p, err := exec.LookPath(name); err == nil && filepath.IsAbs(p) {
		return p
	}
	for _, dir := range directories {
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	return ""
}

func executable(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// mayMount reports why this process cannot make mounts.
func mayMount() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("capabilities of this process: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("OCI runtimes need CAP_SYS_ADMIN: run as root or in a user namespace (strata unshare): %w", define.ErrUnsupported)
	}
	return nil
}

// oneLine joins errors on one line, each still found by errors.Is.
func oneLine(errs []error) error {
	var text []string
	for _, e := range errs {
		text = append(text, strings.ReplaceAll(e.Error(), "\n", "; "))
	}
	return &joined{strings.Join(text, "; "), errors.Join(errs...)}
}

type joined struct {
	text string
	errs error
}

func (j *joined) Error() string { return j.text }
func (j *joined) Unwrap() error { return j.errs }
