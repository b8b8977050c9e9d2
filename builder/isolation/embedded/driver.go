package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/define"
)

// Options are the driver's; the zero value is good.
type Options struct {
	// Ahead keeps the next step's first process started, which saves about
	// 1 ms of each step but the first. For builds, where a step mostly follows.
	Ahead bool
	// SharedPID runs steps in the pid namespace of this process, for hosts
	// where no /proc can be mounted for another one: in containers that mask
	// parts of theirs. A step then sees the processes around it, and may signal
	// those of its user; it can trace none that has more capabilities. What it
	// leaves running is found and ended by a monitor, unless the step kills
	// that.
	SharedPID bool
}

// driver implements isolation.Driver.
type driver struct {
	o       Options
	starter *starter

	probe func() error // once

	mu       sync.Mutex
	programs map[*specs.LinuxSeccomp][]byte
	asking   map[askingKey][]byte // with a listener
	ready    *process             // started ahead
	// preparing is closed when what Prepare does is done; nil without it.
	preparing chan struct{}
	ahead     sync.WaitGroup
	closed    bool

	oom oomCounter
}

// New returns the driver. It starts nothing before the first Run or Available.
func New(o Options) (isolation.Driver, error) {
	st, err := newStarter()
	if err != nil {
		return nil, err
	}
	d := &driver{o: o, starter: st, programs: map[*specs.LinuxSeccomp][]byte{}, asking: map[askingKey][]byte{}}
	d.probe = sync.OnceValue(d.tryNamespaces)
	return d, nil
}

func (d *driver) Name() string { return "embedded" }

// Available makes a container's namespaces once and tries in them what some
// hosts forbid. As root outside any user namespace it trusts, and looks at the
// kernel's age alone.
func (d *driver) Available(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if errors.Is(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}), unix.ENOSYS) {
		return explain(fmt.Errorf("mount_setattr: %w", unix.ENOSYS))
	}
	if !host().userns && os.Geteuid() == 0 && hasSysAdmin() && !d.o.SharedPID {
		return nil
	}
	return d.probe()
}

func (d *driver) tryNamespaces() error {
	flags, probe := uintptr(namespaceFlags), uint32(early.Probe)
	if d.o.SharedPID {
		flags, probe = flags&^unix.CLONE_NEWPID, probe|early.SharedPID
	}
	p, err := d.starter.start(flags)
	if err != nil {
		return explain(err)
	}
	defer p.end()
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	fd := int(root.Fd())
	if err := p.send((&early.Config{Flags: probe}).Encode(), []int{fd, fd, fd, fd}); err != nil {
		return fmt.Errorf("embedded isolation: %w", err)
	}
	if r := p.follow(nil, nil); r.err != nil {
		return explain(r.err)
	} else if !r.started {
		return errors.New("embedded isolation: the first process died at once")
	}
	return nil
}

// explain adds what a host may have done to refuse.
func explain(err error) error {
	remedy := ""
	switch {
	case errors.Is(err, syscall.EPERM) && strings.Contains(err.Error(), "/proc"):
		remedy = "; parts of the /proc around strata are hidden (in a container: --security-opt unmask=/proc/* shows them)"
	case errors.Is(err, syscall.ENOSPC):
		remedy = "; a limit of namespaces is reached: see sysctl user.max_pid_namespaces and its siblings"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		remedy = "; namespaces need CAP_SYS_ADMIN, and no seccomp or LSM profile in the way " +
			"(in a container: --security-opt seccomp=unconfined, unmask=/proc/*); --isolation chroot needs less"
	case errors.Is(err, syscall.ENOSYS):
		remedy = "; the kernel must be 5.12 or newer, and a container's seccomp profile no older; --isolation chroot needs less"
	}
	return fmt.Errorf("embedded isolation: %w%s: %w", err, remedy, define.ErrUnsupported)
}

// Close ends the process that was started ahead. Running steps go on.
func (d *driver) Close() error {
	d.mu.Lock()
	d.closed = true
	p := d.ready
	d.ready = nil
	d.mu.Unlock()
	d.ahead.Wait()
	if p != nil {
		p.end()
	}
	return d.starter.close()
}

// hostFacts are properties of the host that do not change.
type hostFacts struct {
	userns       bool // in a user namespace other than the first
	denySetgroup bool
	cgroup2      bool // /sys/fs/cgroup is the unified hierarchy
}

var host = sync.OnceValue(func() hostFacts {
	var f hostFacts
	// The first one's number is fixed (PROC_USER_INIT_INO).
	if link, err := os.Readlink("/proc/self/ns/user"); err == nil {
		f.userns = link != "user:[4026531837]"
	}
	if f.userns {
		b, err := os.ReadFile("/proc/self/setgroups")
		f.denySetgroup = err == nil && strings.TrimSpace(string(b)) == "deny"
	}
	var st unix.Statfs_t
	f.cgroup2 = unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
	return f
})

func hasSysAdmin() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
