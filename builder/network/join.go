package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// openPath opens a namespace that exists, by its file.
func openPath(o Options) (*Network, error) {
	f, err := os.Open(o.Mode.Path)
	if err != nil {
		return nil, fmt.Errorf("network ns:%s: %w", o.Mode.Path, plain(err))
	}
	return existing(f, "ns:"+o.Mode.Path)
}

// openProcess opens the namespace of a process of the host's.
func openProcess(o Options) (*Network, error) {
	what := "container:" + strconv.Itoa(o.Mode.PID)
	name := strconv.Itoa(o.Mode.PID) + "/ns/net"
	var f *os.File
	var err error
	if o.HostProc != nil {
		var fd int
		if fd, err = unix.Openat(int(o.HostProc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			f = os.NewFile(uintptr(fd), what)
		}
	} else {
		f, err = os.Open("/proc/" + name)
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("network %s: no such process: %w", what, define.ErrNotFound)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("network %s: the process is another user's: run as that user, or as root: %w", what, plain(err))
	case err != nil:
		return nil, fmt.Errorf("network %s: %w", what, plain(err))
	}
	return existing(f, what)
}

// existing takes over f once it is known to be what it should, and to be
// enterable: a step would say so less clearly.
func existing(f *os.File, what string) (*Network, error) {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, fmt.Errorf("network %s: not a network namespace: %w", what, define.ErrInvalid)
	}
	err = onOwnThread(func() error { return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET) })
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("network %s: cannot be entered: %w; it must have been made by this user's own containers, or be entered as root", what, err)
	}
	n := &Network{namespace: f, kind: what}
	n.onClose(f.Close)
	return n, nil
}

// plain is an error of the kernel's without the name that the caller gives.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// hasDefaultRoute reports whether the namespace has a way out.
func hasDefaultRoute(ns *os.File) (ok bool, err error) {
	err = onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		four, _ := wayOut(unix.AF_INET)
		six, _ := wayOut(unix.AF_INET6)
		ok = four.IsValid() || six.IsValid()
		return nil
	})
	return ok, err
}
