package network

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

func TestPrivateReachesTheWorld(t *testing.T) {
	inHost(t, func(t *testing.T) {
		w := newWorld(t, true)
		useResolver(t)
		n := open(t, "private", true)
		if n.Kind() != "user-mode" {
			t.Errorf("kind %q", n.Kind())
		}
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		for _, a := range []netip.Addr{w.four, w.six} {
			at := netip.AddrPortFrom(a, uint16(w.port)).String()
			who := talk(t, n, at, data)
			if who != hostFour.Addr().String() && who != hostSix.Addr().String() {
				t.Errorf("%s sees %s, want the host", at, who)
			}
			for _, size := range []int{1, 1400, 60000} {
				echoes(t, n, at, size)
			}
		}
		asks(t, n)
	})
}

// Many at once, so that a slot or descriptor that is not given back shows.
func TestPrivateManyConnections(t *testing.T) {
	inHost(t, func(t *testing.T) {
		w := newWorld(t, false)
		n := open(t, "private", true)
		at := netip.AddrPortFrom(w.four, uint16(w.port)).String()
		before := openFiles(t)
		done := make(chan error, 300)
		for range cap(done) {
			go func() {
				var c net.Conn
				err := in(t, n.Namespace(), func() (err error) {
					c, err = net.DialTimeout("tcp", at, 20*time.Second)
					return err
				})
				if err == nil {
					fmt.Fprint(c, "hello")
					c.(*net.TCPConn).CloseWrite()
					var b []byte
					if b, err = io.ReadAll(c); err == nil && !bytes.HasSuffix(b, []byte("helloend")) {
						err = fmt.Errorf("got %q", b)
					}
					c.Close()
				}
				done <- err
			}()
		}
		for range cap(done) {
			check(t, <-done)
		}
		for i := 0; openFiles(t) > before+5; i++ {
			if i == 100 {
				t.Errorf("%d descriptors are open, %d were", openFiles(t), before)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// openFiles counts sockets: what io.Copy keeps for splice(2) is not ours.
func openFiles(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	for _, f := range list {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func TestPrivateRefuses(t *testing.T) {
	inHost(t, func(t *testing.T) {
		w := newWorld(t, false)
		loopback, err := net.Listen("tcp4", "127.0.0.1:0")
		check(t, err)
		defer loopback.Close()
		n := open(t, "private", true)
		// A closed port of the world, quickly.
		begin := time.Now()
		_, err = dial(t, n, "tcp", netip.AddrPortFrom(w.four, 9).String())
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begin) > 5*time.Second {
			t.Errorf("closed port: %v after %v", err, time.Since(begin))
		}
		// What listens on the host's loopback device only, by the gateway.
		port := loopback.Addr().(*net.TCPAddr).Port
		if _, err = dial(t, n, "tcp", netip.AddrPortFrom(n.Gateway(), uint16(port)).String()); err == nil {
			t.Error("the host's loopback device is reached by the gateway")
		}
		// And with routes that a step with NET_ADMIN could make.
		check(t, in(t, n.Namespace(), func() error {
			for _, name := range []string{"all", "eth0"} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0); err != nil {
					return err
				}
			}
			c, err := connectByDevice([4]byte{127, 0, 0, 1}, port)
			if err == nil {
				unix.Close(c)
				t.Error("127.0.0.1 of the host is reached by the device")
			}
			return nil
		}))
	})
}

// connectByDevice connects to an address by eth0, whatever the routes say.
func connectByDevice(a [4]byte, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.Timeval{Sec: 2}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	if err := unix.BindToDevice(fd, deviceName); err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: a, Port: port})
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		return -1, err
	}
	unix.Close(fd)
	return -1, unix.EINVAL
}

func TestPrivateGateway(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		loopback, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check(t, err)
		defer loopback.Close()
		all, err := net.ListenTCP("tcp4", &net.TCPAddr{})
		check(t, err)
		defer all.Close()
		go echoStreams(loopback)
		go echoStreams(all)
		n := open(t, "private", true)
		at := func(l net.Listener) string {
			return netip.AddrPortFrom(n.Gateway(), uint16(l.Addr().(*net.TCPAddr).Port)).String()
		}
		talk(t, n, at(all), []byte("to the host"))
		n = open(t, "private:allow_host_loopback=true", true)
		talk(t, n, at(loopback), []byte("to its loopback device"))
	})
}

func TestPrivateWithoutWayOut(t *testing.T) {
	inHost(t, func(t *testing.T) {
		n := open(t, "private", true)
		if _, err := dial(t, n, "tcp", "192.0.2.1:80"); err == nil {
			t.Error("connected to nowhere")
		}
		if _, err := dial(t, n, "tcp", netip.AddrPortFrom(n.Gateway(), 80).String()); err == nil {
			t.Error("connected to a host without an address")
		}
	})
}

func TestTunDevice(t *testing.T) {
	d, err := newTunDevice(testPlan())
	if err != nil {
		t.Skipf("no tun device here: %v", err)
	}
	d.close()
}

func TestExisting(t *testing.T) {
	inHost(t, func(t *testing.T) {
		ns, err := emptyNamespace()
		check(t, err)
		defer ns.Close()
		path := fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
		n := open(t, "ns:"+path, true)
		check(t, in(t, n.Namespace(), func() error { _, err := deviceNumber("lo"); return err }))
		open(t, fmt.Sprintf("container:%d", os.Getpid()), true)
		for mode, kind := range map[string]error{
			"ns:/proc/self/ns/mnt":  define.ErrInvalid,
			"ns:/etc/passwd":        define.ErrInvalid,
			"ns:/no/such/namespace": unix.ENOENT,
			"container:999999999":   define.ErrNotFound,
		} {
			m, err := Parse(mode)
			check(t, err)
			if _, err = Open(t.Context(), Options{Mode: m}); !errors.Is(err, kind) {
				t.Errorf("%s: %v, want %v", mode, err, kind)
			}
		}
	})
}

// testProgram runs a network that a program of this name serves.
func testProgram(t *testing.T, mode string) {
	if _, err := find(mode); err != nil {
		t.Skip(err)
	}
	inHost(t, func(t *testing.T) {
		w := newWorld(t, false)
		useResolver(t)
		m, err := Parse(mode)
		check(t, err)
		n, err := Open(t.Context(), Options{Mode: m, Rootless: true})
		if errors.Is(err, define.ErrUnsupported) {
			t.Skip(err)
		}
		check(t, err)
		// Old versions of pasta do not pass the end of one direction on.
		c, err := dial(t, n, "tcp", netip.AddrPortFrom(w.four, uint16(w.port)).String())
		check(t, err)
		line, err := bufio.NewReader(c).ReadString('\n')
		if check(t, err); strings.TrimSpace(line) != hostFour.Addr().String() {
			t.Errorf("the world sees %q", line)
		}
		check(t, n.Close())
	})
}

func TestSlirp4netns(t *testing.T) { testProgram(t, "slirp4netns") }
func TestPasta(t *testing.T)       { testProgram(t, "pasta") }

func TestBusyHostHasNoSubnet(t *testing.T) {
	_, err := freeSubnet([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1")})
	if !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	p, err := freeSubnet([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	if err != nil || p.Addr().As4()[0] == 10 {
		t.Errorf("%v, %v", p, err)
	}
}
