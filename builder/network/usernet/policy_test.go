package usernet

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func testStack() *Stack {
	return &Stack{o: Options{
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
		Host:      []netip.Addr{netip.MustParseAddr("198.51.100.7"), {}},
		Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53")},
	}}
}

// What must not be reached, however it is written.
func TestRefused(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::127.0.0.1",
		"0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0",
		"224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "fe80::1",
	} {
		if got, ok := testStack().resolve(netip.MustParseAddr(a), 80); ok {
			t.Errorf("%s leads to %+v", a, got)
		}
	}
	if _, ok := testStack().resolve(netip.Addr{}, 80); ok {
		t.Error("no address leads somewhere")
	}
	if _, ok := testStack().resolve(netip.MustParseAddr("192.0.2.1"), 0); ok {
		t.Error("port 0 leads somewhere")
	}
}

func TestResolve(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:443":           "192.0.2.1:443",
		"[2001:db8::1]:443":       "[2001:db8::1]:443",
		"[::ffff:192.0.2.1]:80":   "192.0.2.1:80",
		"169.254.169.254:80":      "169.254.169.254:80",
		"10.0.2.2:80":             "198.51.100.7:80",
		"10.0.2.2:53":             "dns",
		"[fd00::2]:53":            "dns",
		"[fd00::2]:80":            "nowhere",
		"[::ffff:10.0.2.2]:53":    "dns",
		"[::ffff:10.0.2.2]:12345": "198.51.100.7:12345",
	} {
		a := netip.MustParseAddrPort(in)
		got, ok := testStack().resolve(a.Addr(), a.Port())
		text := got.addr.String()
		switch {
		case !ok:
			text = "nowhere"
		case got.dns:
			text = "dns"
		}
		if text != want {
			t.Errorf("%s leads to %s, want %s", in, text, want)
		}
	}
}

func TestReadEcho(t *testing.T) {
	packet := make([]byte, header.IPv4MinimumSize+8)
	h := header.IPv4(packet)
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(packet)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber)})
	packet[header.IPv4MinimumSize] = echoRequest4
	if _, ok := echo4(packet); !ok {
		t.Error("an echo request was not seen")
	}
	packet[header.IPv4MinimumSize] = 3
	if _, ok := echo4(packet); ok {
		t.Error("another message was taken for an echo request")
	}
	for n := range packet {
		if _, ok := echo4(packet[:n]); ok {
			t.Errorf("the first %d bytes were taken for an echo request", n)
		}
	}
}

// Packets are the steps' to make: those with NET_RAW write any bytes.
func FuzzEcho(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 2, 100, 192, 0, 2, 1, 8, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := echo4(b); ok && (len(e.message) < 8 || !e.to.Is4()) {
			t.Errorf("%+v", e)
		}
		if e, ok := echo6(b); ok && len(e.message) < 8 {
			t.Errorf("%+v", e)
		}
	})
}
