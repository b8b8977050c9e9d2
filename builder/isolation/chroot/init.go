package chroot

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// initMain is the init: it returns only when it cannot become the step's
// program. It runs on the first thread, which is the one that executes it.
func initMain() int {
	control := os.NewFile(controlFd, "control")
	var j job
	if err := readMessage(control, &j); err != nil {
		return 1
	}
	if err := writeMessage(control, becomeStep(&j)); err != nil {
		return 1
	}
	return 1
}

// becomeStep sets everything up and executes the program.
func becomeStep(j *job) *report {
	// From here on nothing of ours is inherited, whatever happens.
	if err := closeOnExec(); err != nil {
		return failed("descriptors", err)
	}
	// A handler in place of what was ignored: execve resets handlers only.
	signal.Notify(make(chan os.Signal, 1))
	p := j.Spec.Process
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return failed("parent death signal", err)
	}
	unix.Umask(0o022)
	if p.User.Umask != nil {
		unix.Umask(int(*p.User.Umask))
	}
	if err := joinAll(j); err != nil {
		return failed("", err)
	}
	if err := changeProfile(p.ApparmorProfile); err != nil {
		return failed("", err)
	}
	if err := network(j); err != nil {
		return failed("", err)
	}
	ptmx, err := enterRoot(j)
	if err != nil {
		return failed("", err)
	}
	if j.Terminal {
		err = takeTerminal(ptmx, p.User.UID, p.ConsoleSize)
	} else {
		err = ownStreams(p.User.UID)
	}
	if err != nil {
		return failed("", err)
	}
	if err := changeDir(p.Cwd); err != nil {
		return failed("", err)
	}
	if err := dropPrivileges(j); err != nil {
		return failed("", err)
	}
	return execute(p)
}

// enterRoot makes the step's root ours. With a terminal it returns a
// descriptor of the multiplexer.
func enterRoot(j *job) (ptmx int, err error) {
	ptmx = -1
	if j.Mounts {
		m, err := mountAll(j)
		if err != nil {
			return -1, err
		}
		if j.Terminal {
			if ptmx, err = m.openPtmx(); err != nil {
				return -1, err
			}
		}
		if err := pivot(rootFd); err != nil {
			return -1, fmt.Errorf("step's root: %w", err)
		}
	} else {
		if j.Terminal {
			if ptmx, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
				return -1, fmt.Errorf("/dev/ptmx: %w", err)
			}
		}
		if err := unix.Fchdir(rootFd); err != nil {
			return -1, fmt.Errorf("step's root: %w", err)
		}
		if err := unix.Chroot("."); err != nil {
			return -1, fmt.Errorf("step's root: chroot: %w", err)
		}
	}
	var want, is unix.Stat_t
	if err := unix.Fstat(rootFd, &want); err != nil {
		return -1, fmt.Errorf("step's root: %w", err)
	}
	if err := unix.Stat("/", &is); err != nil || want.Dev != is.Dev || want.Ino != is.Ino {
		return -1, errors.New("step's root: another directory than was asked for became the root")
	}
	return ptmx, nil
}

// pivot makes root, a mount at the top of this namespace, its root, and
// detaches the rest.
func pivot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The old root lies over the new one now, at the working directory.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's mounts: %w", err)
	}
	return unix.Chdir("/")
}

// changeDir enters the working directory. No magic link is followed, and the
// kernel must know the result as a name below the root (CVE-2024-21626).
func changeDir(cwd string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, cwd, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err == nil {
		err = unix.Fchdir(fd)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("working directory %s: %w", cwd, err)
	}
	buf := make([]byte, unix.PathMax)
	if n, err := unix.Getcwd(buf); err != nil || n < 1 || buf[0] != '/' {
		return fmt.Errorf("working directory %s: lies outside of the root", cwd)
	}
	return nil
}

// ownStreams makes pipes the step's user's own, so that /dev/stdout can be
// opened. Files and terminals of the caller's keep their owner.
func ownStreams(uid uint32) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("standard streams: %w", err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFIFO && st.Uid != uid {
			_ = unix.Fchown(fd, int(uid), -1) // a luxury
		}
	}
	return nil
}

// network gives the step a network namespace with a loopback device, if it is
// to have one.
func network(j *job) error {
	s := j.Spec
	wanted := false
	for _, n := range s.Linux.Namespaces {
		_, given := j.Joined[n.Type]
		wanted = wanted || n.Type == specs.NetworkNamespace && !given
	}
	if !wanted {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network none: this host gives no network namespace, so a step cannot be kept from the network: %w", err)
	}
	s4, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	defer unix.Close(s4)
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		lo.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(s4, unix.SIOCSIFFLAGS, lo)
	}
	if err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	return nil
}

// execute finds the program as execvp(3) does and becomes it.
func execute(p *specs.Process) *report {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return execFailed(name, unix.Exec(name, p.Args, p.Env))
	}
	last := error(unix.ENOENT)
	for _, e := range p.Env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(list, ":") {
			if !filepath.IsAbs(dir) {
				continue // relative entries find what the step's user did not mean
			}
			var st unix.Stat_t
			file := filepath.Join(dir, name)
			if err := unix.Stat(file, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
				continue
			}
			err := unix.Exec(file, p.Args, p.Env)
			if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
				return execFailed(name, err)
			}
			last = err
		}
		break
	}
	return execFailed(name, last)
}

func execFailed(name string, err error) *report {
	r := failed(name, err)
	r.Program = name
	return r
}
