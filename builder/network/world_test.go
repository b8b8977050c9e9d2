package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/netlink"
)

// childVariable names the test whose body this process is to run as "the
// host": a process in user, network and mount namespaces of its own, so that
// nothing of the machine is looked at or changed.
const childVariable = "STRATA_TEST_NETWORK_HOST"

// inHost runs body in such a process.
func inHost(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv(childVariable) == t.Name() {
		body(t)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=40s")
	cmd.Env = append(os.Environ(), childVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip(string(out))
	}
	if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// world is a network beyond the host: a namespace with servers, and the host
// with an address and default routes in it.
type world struct {
	namespace *os.File
	four, six netip.Addr // of the servers
	port      int        // of all of them
}

var (
	hostFour = netip.MustParsePrefix("100.64.9.1/24")
	hostSix  = netip.MustParsePrefix("2001:db8:9::1/64")
)

// newWorld makes the world; six false leaves IPv6 out.
func newWorld(t *testing.T, six bool) *world {
	t.Helper()
	w := &world{four: netip.MustParseAddr("100.64.9.2"), six: netip.MustParseAddr("2001:db8:9::2"), port: 7777}
	ns, err := emptyNamespace()
	check(t, err)
	t.Cleanup(func() { ns.Close() })
	w.namespace = ns
	s, err := netlink.Dial(netlink.Route)
	check(t, err)
	defer s.Close()
	b := &netlink.Batch{}
	b.SetLink(netlink.LoopbackIndex, 0)
	b.AddVeth(netlink.Veth{Name: "up0", Index: 5, Up: true}, netlink.Veth{Name: "eth0", Index: deviceIndex}, int(ns.Fd()))
	check(t, s.Do(b))
	check(t, in(t, ns, func() error {
		b := &netlink.Batch{}
		b.SetLink(deviceIndex, 0)
		b.AddAddress(deviceIndex, netip.PrefixFrom(w.four, hostFour.Bits()))
		b.AddAddress(deviceIndex, netip.PrefixFrom(w.six, hostSix.Bits()))
		return do(b)
	}))
	b = &netlink.Batch{}
	b.AddAddress(5, hostFour)
	b.AddDefaultRoute(5, w.four)
	if six {
		b.AddAddress(5, hostSix)
		b.AddDefaultRoute(5, w.six)
	}
	check(t, s.Do(b))
	w.serve(t)
	return w
}

// serve starts servers in the world: TCP says whom it sees, a line, and then
// sends back what it gets; UDP sends it back.
func (w *world) serve(t *testing.T) {
	for _, a := range []netip.Addr{w.four, w.six} {
		at := netip.AddrPortFrom(a, uint16(w.port))
		var l *net.TCPListener
		var u *net.UDPConn
		check(t, in(t, w.namespace, func() (err error) {
			if l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err == nil {
				u, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			}
			return err
		}))
		t.Cleanup(func() { l.Close(); u.Close() })
		go echoStreams(l)
		go echoDatagrams(u)
	}
}

func echoStreams(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
			_, _ = io.Copy(c, c)
			fmt.Fprint(c, "end")
		}()
	}
}

func echoDatagrams(u net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		k, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = u.WriteTo(buf[:k], from)
	}
}

// useResolver gives the process a resolv.conf of its own, with a name server
// on the loopback device, as systemd-resolved is, that knows every name as 192.0.2.7.
func useResolver(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	check(t, os.WriteFile(file, []byte("nameserver 127.0.0.53\nsearch example.test\n"), 0o644))
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Skipf("this host has no /etc/resolv.conf to cover: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) })
	u, err := net.ListenPacket("udp4", "127.0.0.53:53")
	check(t, err)
	l, err := net.Listen("tcp4", "127.0.0.53:53")
	check(t, err)
	t.Cleanup(func() { u.Close(); l.Close() })
	go func() {
		buf := make([]byte, 65535)
		for {
			k, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(reply(buf[:k]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 2)
			if _, err := io.ReadFull(c, head); err == nil {
				q := make([]byte, binary.BigEndian.Uint16(head))
				_, _ = io.ReadFull(c, q)
				a := reply(q)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			}
			c.Close()
		}
	}()
}

// reply makes an answer with one address of a question.
func reply(q []byte) []byte {
	a := append([]byte(nil), q...)
	a[2], a[7] = a[2]|0x80, 1
	return append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
}

// question is one for the address of build.test.
func question() []byte {
	return append([]byte{0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x05build\x04test\x00\x00\x01\x00\x01"...)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a network and closes it with the test.
func open(t *testing.T, mode string, rootless bool) *Network {
	t.Helper()
	m, err := Parse(mode)
	check(t, err)
	n, err := Open(t.Context(), Options{Mode: m, Rootless: rootless})
	check(t, err)
	t.Cleanup(func() { check(t, n.Close()) })
	return n
}

// dial connects from inside the namespace.
func dial(t *testing.T, n *Network, network, address string) (c net.Conn, err error) {
	t.Helper()
	err = in(t, n.Namespace(), func() error {
		c, err = net.DialTimeout(network, address, 10*time.Second)
		return err
	})
	if c != nil {
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// talk sends data by TCP, ends its direction, and checks what comes back; it
// returns the address that the server saw.
func talk(t *testing.T, n *Network, address string, data []byte) string {
	t.Helper()
	c, err := dial(t, n, "tcp", address)
	check(t, err)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	all, err := io.ReadAll(c)
	check(t, err)
	check(t, <-sent)
	who, rest, _ := strings.Cut(string(all), "\n")
	if rest != string(data)+"end" {
		t.Fatalf("%s: %d bytes came back, of %d and an end", address, len(rest), len(data))
	}
	return who
}

// echoes sends a datagram and waits for it to come back.
func echoes(t *testing.T, n *Network, address string, size int) {
	t.Helper()
	c, err := dial(t, n, "udp", address)
	check(t, err)
	data := bytes.Repeat([]byte{7}, size)
	_, err = c.Write(data)
	check(t, err)
	buf := make([]byte, 65535)
	k, err := c.Read(buf)
	check(t, err)
	if !bytes.Equal(buf[:k], data) {
		t.Errorf("%s: %d bytes came back, of %d", address, k, size)
	}
}

// asks resolves a name by the network's server, by both protocols.
func asks(t *testing.T, n *Network) {
	t.Helper()
	if len(n.DNS()) != 1 {
		t.Fatalf("name servers %v, want one", n.DNS())
	}
	at := netip.AddrPortFrom(n.DNS()[0], 53).String()
	want := []byte{192, 0, 2, 7}
	c, err := dial(t, n, "udp", at)
	check(t, err)
	_, err = c.Write(question())
	check(t, err)
	buf := make([]byte, 512)
	k, err := c.Read(buf)
	check(t, err)
	if !bytes.HasSuffix(buf[:k], want) {
		t.Errorf("answer by UDP %x, want one that ends in %x", buf[:k], want)
	}
	c, err = dial(t, n, "tcp", at)
	check(t, err)
	q := question()
	_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
	check(t, err)
	a, err := io.ReadAll(c)
	check(t, err)
	if !bytes.HasSuffix(a, want) {
		t.Errorf("answer by TCP %x, want one that ends in %x", a, want)
	}
}
