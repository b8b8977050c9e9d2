package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stratabuild/strata/builder/network/netlink"
	"github.com/stratabuild/strata/define"
)

// programTime is how long a program may take to set up its device.
const programTime = 15 * time.Second

// emptyNamespace makes a namespace that has a loopback device only.
func emptyNamespace() (namespace *os.File, err error) {
	err = onOwnThread(func() error {
		if namespace, err = unshare(); err != nil {
			return err
		}
		b := &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		return do(b)
	})
	if err != nil && namespace != nil {
		namespace.Close()
	}
	return namespace, err
}

// program is a program that serves a namespace.
type program struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan error
}

// find looks for a program by name.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("network %s: %w: install it, or use --network private, which needs no program: %w", name, err, define.ErrNotFound)
	}
	return filepath.Abs(path)
}

// start starts the program, which dies with us.
func (p *program) start() error {
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = time.Second
	p.done = make(chan error, 1)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() { p.done <- p.cmd.Wait() }()
	return nil
}

// stop ends it, and waits.
func (p *program) stop() error {
	_ = p.cmd.Process.Kill()
	<-p.done
	p.done <- nil
	return nil
}

// failure is why it ended, with the last line that it wrote.
func (p *program) failure(err error) error {
	text := strings.TrimSpace(p.stderr.String())
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	if err == nil {
		err = errors.New("ended at once")
	}
	return fmt.Errorf("%w: %q", err, text)
}

// openSlirp has slirp4netns(1) serve a namespace. It says on a descriptor that
// it is ready.
func openSlirp(ctx context.Context, o Options) (*Network, error) {
	path, err := find("slirp4netns")
	if err != nil {
		return nil, err
	}
	ns, err := emptyNamespace()
	if err != nil {
		return nil, err
	}
	n := &Network{namespace: ns, kind: "slirp4netns", gateway: netip.AddrFrom4([4]byte{10, 0, 2, 2}),
		dns: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 2, 3})}}
	n.onClose(ns.Close)
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	defer ready.Close()
	args := []string{"--configure", "--mtu=65520", "--ready-fd=3", "--netns-type=path"}
	if !o.Mode.HostLoopback {
		args = append(args, "--disable-host-loopback")
		n.gateway = netip.Addr{}
	}
	h := lookAtHost()
	if h.own6.IsValid() {
		args = append(args, "--enable-ipv6")
	}
	p := &program{cmd: exec.Command(path, append(args, "/proc/self/fd/4", "tap0")...)}
	p.cmd.ExtraFiles = []*os.File{theirs, ns}
	err = p.start()
	theirs.Close()
	if err == nil {
		n.onClose(p.stop)
		ready.SetReadDeadline(time.Now().Add(programTime))
		stop := context.AfterFunc(ctx, func() { ready.Close() })
		defer stop()
		var b [1]byte
		if k, _ := ready.Read(b[:]); k != 1 {
			_ = p.cmd.Process.Kill()
			err = p.failure(<-p.done)
			p.done <- nil
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network slirp4netns: %w: %w", err, define.ErrUnsupported), n.Close())
	}
	return n, nil
}

// pastaDNS is an address that pasta answers for (RFC 3927, as podman has it).
var pastaDNS = netip.AddrFrom4([4]byte{169, 254, 1, 1})

// openPasta has pasta(1) serve a namespace. It goes into the background when
// it is ready, and leaves its number in a file.
func openPasta(ctx context.Context, o Options) (*Network, error) {
	path, err := find("pasta")
	if err != nil {
		return nil, err
	}
	ns, err := emptyNamespace()
	if err != nil {
		return nil, err
	}
	n := &Network{namespace: ns, kind: "pasta", dns: []netip.Addr{pastaDNS}}
	n.onClose(ns.Close)
	args := append([]string{"--foreground", "--quiet", "--config-net", "--no-map-gw", "--dns-forward", pastaDNS.String(),
		"-t", "none", "-u", "none", "-T", "none", "-U", "none"}, o.Mode.Args...)
	if os.Geteuid() == 0 {
		args = append(args, "--runas", "0:0")
	}
	p := &program{cmd: exec.CommandContext(ctx, path, append(args, "--netns", "/proc/self/fd/3")...)}
	p.cmd.ExtraFiles = []*os.File{ns}
	if err := p.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("network pasta: %w", err), n.Close())
	}
	n.onClose(p.stop)
	if err := p.awaitRoute(ctx, ns); err != nil {
		return nil, errors.Join(fmt.Errorf("network pasta: %w: %w", err, define.ErrUnsupported), n.Close())
	}
	return n, nil
}

// awaitRoute waits for the program to have given the namespace a route.
func (p *program) awaitRoute(ctx context.Context, ns *os.File) error {
	end := time.After(programTime)
	for {
		ok, err := hasDefaultRoute(ns)
		if ok || err != nil {
			return err
		}
		select {
		case err := <-p.done:
			p.done <- nil
			return p.failure(err)
		case <-end:
			return errors.New("no device within " + strconv.Itoa(int(programTime.Seconds())) + " seconds")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
