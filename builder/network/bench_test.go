package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/usernet"
)

// BenchmarkNetworks compares ours with the programs that others use, where
// those are installed: what making and closing a network costs, and what a
// connection to this host's own address carries in each direction.
func BenchmarkNetworks(b *testing.B) {
	h := lookAtHost()
	if !h.own4.IsValid() {
		b.Skip("this host has no way out by IPv4")
	}
	for _, mode := range []Mode{
		{Kind: Private}, {Kind: Bridge}, {Kind: Slirp4netns},
		// An address of its own: otherwise it copies the host's, which is then
		// not reached.
		{Kind: Pasta, Args: []string{"-a", "10.143.92.2", "-n", "24", "-g", "10.143.92.1"}},
	} {
		open := func(b *testing.B) *Network {
			var n *Network
			var err error
			if mode.Kind == Private {
				n, err = openUser(Options{}, h) // as root, too
			} else {
				n, err = Open(b.Context(), Options{Mode: mode, Rootless: os.Geteuid() != 0})
			}
			if err != nil {
				b.Skip(err)
			}
			return n
		}
		b.Run(string(mode.Kind)+"/open", func(b *testing.B) { benchmarkOpen(b, open) })
		l, err := net.Listen("tcp4", netip.AddrPortFrom(h.own4, 0).String())
		check(b, err)
		defer l.Close()
		for _, upload := range []bool{false, true} {
			b.Run(string(mode.Kind)+direction(upload), func(b *testing.B) {
				n := open(b)
				defer n.Close()
				check(b, stream(b, n.Namespace(), l, h.own4, upload))
			})
		}
	}
}

func direction(upload bool) string {
	if upload {
		return "/upload"
	}
	return "/download"
}

// benchmarkOpen is what a build pays: making the network, and taking it away.
// Builds do not follow one another as closely as these would: the pauses let
// the kernel take the last one's namespaces down.
func benchmarkOpen(b *testing.B, open func(*testing.B) *Network) {
	var opening, closing, cpu time.Duration
	for b.Loop() {
		begin, used := time.Now(), processorTime(b)
		n := open(b)
		opening += time.Since(begin)
		begin = time.Now()
		check(b, n.Close())
		closing += time.Since(begin)
		cpu += processorTime(b) - used
		b.StopTimer()
		time.Sleep(50 * time.Millisecond)
		b.StartTimer()
	}
	b.ReportMetric(float64(opening.Microseconds())/float64(b.N), "open-µs")
	b.ReportMetric(float64(closing.Microseconds())/float64(b.N), "close-µs")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs")
}

// processorTime is what this process has used, in the kernel too: a number
// that other processes do not disturb much.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDevices compares the two kinds of devices below the user-mode stack.
func BenchmarkDevices(b *testing.B) {
	for kind, make := range map[string]func(plan) (device, error){"packet": newPacketDevice, "tun": newTunDevice} {
		p := testPlan()
		d, err := make(p)
		if err != nil {
			b.Logf("%s: %v", kind, err)
			continue
		}
		defer d.namespace.Close()
		loop := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		s, err := usernet.Open(usernet.Options{FD: d.fd, Tun: d.tun, MAC: stackMAC, PeerMAC: deviceMAC, Gateways: p.gateways,
			Peers: []netip.Addr{p.peers[0].Addr(), p.peers[1].Addr()}, Host: []netip.Addr{loop, netip.IPv6Loopback()}})
		check(b, err)
		defer s.Close()
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		check(b, err)
		defer l.Close()
		for _, upload := range []bool{false, true} {
			b.Run(kind+direction(upload), func(b *testing.B) {
				check(b, stream(b, d.namespace, l, p.gateways[0], upload))
			})
		}
	}
}

// chunk is how much a round of stream carries.
const chunk = 1 << 20

// stream carries b.N chunks between the namespace and a listener that it
// reaches at the address to.
func stream(b *testing.B, ns *os.File, l net.Listener, to netip.Addr, upload bool) error {
	b.SetBytes(chunk)
	total := int64(b.N) * chunk
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		served <- carryChunks(c, b.N, total, !upload)
	}()
	var inside *os.File
	err := in(b, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		inside = os.NewFile(uintptr(fd), "inside")
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4(), Port: l.Addr().(*net.TCPAddr).Port})
	})
	if inside != nil {
		defer inside.Close()
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	b.ResetTimer()
	if err := carryChunks(inside, b.N, total, upload); err != nil {
		return err
	}
	return <-served
}

// carryChunks writes so many chunks, or reads them.
func carryChunks(c io.ReadWriter, chunks int, total int64, write bool) error {
	buf := make([]byte, chunk)
	if write {
		for range chunks {
			if _, err := c.Write(buf); err != nil {
				return err
			}
		}
		return nil
	}
	// Not to the end: old versions of pasta do not pass that on.
	for got := int64(0); got < total; {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, total, err)
		}
		got += int64(n)
	}
	return nil
}
