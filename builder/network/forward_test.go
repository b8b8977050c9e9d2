package network

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/stratabuild/strata/define"
)

// Forwarded ports are reached at their own addresses, and nothing beside them.
func TestForward(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		forward(t, "1")
		listen := func(at string) *net.TCPListener {
			l, err := net.Listen("tcp", at)
			check(t, err)
			t.Cleanup(func() { l.Close() })
			go echoStreams(l.(*net.TCPListener))
			return l.(*net.TCPListener)
		}
		address := func(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }
		four, six, other := address(listen("127.0.0.1:0")), address(listen("[::1]:0")), address(listen("127.0.0.1:0"))
		for _, kind := range []Kind{Private, Bridge} {
			n, err := Open(t.Context(), Options{Mode: Mode{Kind: kind}, Rootless: kind == Private, Forward: []netip.AddrPort{four, six}})
			check(t, err)
			before := openFiles(t)
			for range 20 {
				talk(t, n, four.String(), []byte("to the proxy"))
			}
			talk(t, n, six.String(), make([]byte, 1<<20))
			if _, err := dial(t, n, "tcp", other.String()); err == nil {
				t.Errorf("%s: %s is reached and was not forwarded", kind, other)
			}
			// The clients' ends are open until the test ends: those of the
			// forwarder are not.
			if now := openFiles(t); now > before+21+4 {
				t.Errorf("%s: %d sockets are open, %d were", kind, now, before)
			}
			check(t, n.Close())
			if _, err := dial(t, n, "tcp", four.String()); err == nil {
				t.Errorf("%s: the port is open after Close", kind)
			}
		}
	})
}

func TestForwardRefuses(t *testing.T) {
	inHost(t, func(t *testing.T) {
		newWorld(t, false)
		at := netip.MustParseAddrPort("192.0.2.1:80")
		if _, err := Open(t.Context(), Options{Mode: Mode{Kind: Private}, Rootless: true, Forward: []netip.AddrPort{at}}); err == nil {
			t.Error("an address that is not of the loopback device was forwarded")
		}
		m := Mode{Kind: Path, Path: "/proc/self/ns/net"}
		if _, err := Open(t.Context(), Options{Mode: m, Forward: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("into a namespace that exists: %v", err)
		}
	})
}
