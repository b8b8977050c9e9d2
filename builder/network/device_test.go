package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/netlink"
	"github.com/stratabuild/strata/builder/network/usernet"
)

func in(t testing.TB, ns *os.File, f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func testPlan() plan {
	return plan{peers: []netip.Prefix{netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00:2::100/64")},
		gateways: []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00:2::2")}}
}

func BenchmarkThroughput(b *testing.B) {
	for _, kind := range []string{"packet", "tun"} {
		b.Run(kind, func(b *testing.B) {
			p := testPlan()
			var d device
			var err error
			if kind == "packet" {
				d, err = newPacketDevice(p)
			} else {
				d, err = newTunDevice(p)
			}
			if err != nil {
				b.Fatal(err)
			}
			loop := netip.MustParseAddr("127.0.0.1")
			s, err := usernet.Open(usernet.Options{FD: d.fd, Tun: d.tun, MAC: stackMAC, PeerMAC: deviceMAC, Gateways: p.gateways,
				Peers: []netip.Addr{p.peers[0].Addr(), p.peers[1].Addr()}, Host: []netip.Addr{loop, netip.IPv6Loopback()}})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			port := l.Addr().(*net.TCPAddr).Port
			for _, dir := range []string{"download", "upload"} {
				b.Run(dir, func(b *testing.B) {
					const chunk = 1 << 20
					b.SetBytes(chunk)
					total := int64(b.N) * chunk
					srv := make(chan error, 1)
					go func() {
						c, err := l.Accept()
						if err != nil {
							srv <- err
							return
						}
						defer c.Close()
						if dir == "upload" {
							n, err := io.Copy(io.Discard, c)
							if n != total && err == nil {
								err = fmt.Errorf("%d of %d", n, total)
							}
							srv <- err
							return
						}
						buf := make([]byte, chunk)
						for i := 0; i < b.N; i++ {
							if _, err := c.Write(buf); err != nil {
								srv <- err
								return
							}
						}
						srv <- nil
					}()
					err := in(b, d.namespace, func() error {
						fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
						if err != nil {
							return err
						}
						defer unix.Close(fd)
						if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 0, 2, 2}, Port: port}); err != nil {
							return fmt.Errorf("connect: %w", err)
						}
						buf := make([]byte, chunk)
						if dir == "upload" {
							for i := 0; i < b.N; i++ {
								for w := 0; w < chunk; {
									n, err := unix.Write(fd, buf[w:])
									if err != nil {
										return err
									}
									w += n
								}
							}
							return nil
						}
						var got int64
						for {
							n, err := unix.Read(fd, buf)
							if err != nil {
								return err
							}
							if n == 0 {
								break
							}
							got += int64(n)
						}
						if got != total {
							return fmt.Errorf("got %d of %d", got, total)
						}
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
					if err := <-srv; err != nil {
						b.Fatal(err)
					}
				})
			}
		})
	}
}

// Networks that were closed are gone soon, though nobody waits for them: more
// follow one another than may exist at once.
func TestClosedNetworksAreCollected(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		const most = 6
		if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte(strconv.Itoa(most)), 0); err != nil {
			t.Skipf("the limit cannot be set in a namespace: %v", err)
		}
		for i := range 5 * most {
			var n *Network
			var err error
			for range 400 {
				if n, err = Open(t.Context(), Options{Mode: Mode{Kind: Private}, Rootless: true}); err == nil || !errors.Is(err, unix.ENOSPC) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Fatalf("the %dth: %v", i, err)
			}
			check(t, n.Close())
		}
	})
}

// A batch is answered once; what fails in the midst of it is still named.
func TestBatchNamesWhatFailed(t *testing.T) {
	inHost(t, func(t *testing.T) {
		b := &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		b.SetLink(77, 0)
		b.SetLink(netlink.LoopbackIndex, 1400)
		err := do(b)
		if !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "switch device 77 on") {
			t.Errorf("%v", err)
		}
		b = &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		check(t, do(b))
	})
}

// BenchmarkOpen is what a build pays: making the network, and taking it away.
// Builds do not follow one another as closely as these would: the pauses let
// the kernel take the last one's namespaces down.
func BenchmarkOpen(b *testing.B) {
	for _, mode := range []Kind{Private, Bridge} {
		b.Run(string(mode), func(b *testing.B) {
			var opening, closing time.Duration
			for b.Loop() {
				begin := time.Now()
				var n *Network
				var err error
				if mode == Bridge {
					n, err = openBridge(Options{}, lookAtHost())
				} else {
					n, err = openUser(Options{}, lookAtHost())
				}
				if err != nil {
					b.Skip(err)
				}
				opening += time.Since(begin)
				begin = time.Now()
				check(b, n.Close())
				closing += time.Since(begin)
				b.StopTimer()
				time.Sleep(50 * time.Millisecond)
				b.StartTimer()
			}
			b.ReportMetric(float64(opening.Microseconds())/float64(b.N), "open-µs")
			b.ReportMetric(float64(closing.Microseconds())/float64(b.N), "close-µs")
		})
	}
}
