package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func (x *examiner) network(context.Context) {
	x.tun()
	if names := x.resolvers(); len(names) == 0 {
		x.add("network.resolver", "resolver", Lesser, "/etc/resolv.conf names no server", "echo nameserver 192.0.2.1 >> /etc/resolv.conf, with your server's address")
	} else {
		x.fact("network.resolver", "resolver", "%s", strings.Join(names, ", ")).with("servers", names)
	}
	if x.first("/proc/sys/net/ipv6/conf/all/disable_ipv6") != "0" {
		x.fact("network.ipv6", "IPv6", "off")
	} else {
		x.fact("network.ipv6", "IPv6", "on")
	}
	var set []string
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"} {
		if os.Getenv(name) != "" {
			set = append(set, name)
		}
	}
	if len(set) > 0 {
		// Values may hold passwords.
		x.fact("network.proxies", "proxies", "set: %s", strings.Join(set, ", ")).with("variables", set)
	}
}

func (x *examiner) tun() {
	const id, name = "network.tun", "/dev/net/tun"
	err := x.tryTun()
	switch {
	case err == nil:
		x.add(id, name, OK, "works", "")
	case errors.Is(err, errNamespace):
		x.add(id, name, Lesser, err.Error(), "see network namespaces above")
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
		x.add(id, name, Neutral, "not there; only for: --network pasta, slirp4netns", "as root: modprobe tun; in a container: --device /dev/net/tun")
	case errors.Is(err, fs.ErrPermission):
		x.add(id, name, Neutral, fmt.Sprintf("cannot be used: %v; only for: --network pasta, slirp4netns", err), "as root: chmod 666 /dev/net/tun; in a container: --device /dev/net/tun")
	default:
		x.add(id, name, Neutral, err.Error()+"; only for: --network pasta, slirp4netns", "")
	}
}

// tryTun makes a device in a network namespace of its own, which ends with the
// thread.
func tryTun() error {
	return inNamespace(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r, err := unix.NewIfreq("tun%d")
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	})
}

var errNamespace = errors.New("no network namespace can be made")

// inNamespace calls f in a new network namespace, on a thread that is thrown
// away: Go ends a thread whose goroutine ends while it is locked.
func inNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread is not thrown away; while it is held here, the
			// next goroutine gets another.
			defer runtime.UnlockOSThread()
			done <- inNamespace(f)
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("%w: %w", errNamespace, err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (x *examiner) resolvers() []string {
	var out []string
	for line := range strings.Lines(x.read("/etc/resolv.conf")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			out = append(out, f[1])
		}
	}
	return out
}
