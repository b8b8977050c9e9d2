package usernet

import (
	"net/netip"
)

// target is where a packet to an address and port really goes.
type target struct {
	addr netip.AddrPort
	// dns: to the host's resolver.
	dns bool
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// resolve says where the namespace's packets to unsafe go; ok is false when
// they go nowhere.
func (n *Stack) resolve(unsafe netip.Addr, port uint16) (t target, ok bool) {
	if !unsafe.IsValid() || port == 0 {
		return t, false
	}
	a := unsafe.Unmap()
	for i, g := range n.o.Gateways {
		if a != g {
			continue
		}
		if port == 53 && len(n.o.Resolvers) > 0 {
			return target{dns: true}, true
		}
		if !n.o.Host[i].IsValid() {
			return t, false
		}
		return target{addr: netip.AddrPortFrom(n.o.Host[i], port)}, true
	}
	if !allowed(a) {
		return t, false
	}
	return target{addr: netip.AddrPortFrom(a, port)}, true
}

// allowed reports whether the namespace may reach an address that is not a
// gateway's. To connect(2), the unspecified address and all of 0.0.0.0/8 that
// the kernel takes for it are the loopback device; an IPv4 address can hide in
// the old compatible form (::a.b.c.d) too.
func allowed(a netip.Addr) bool {
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a == broadcast:
		return false
	case a.Is4():
		b := a.As4()
		return b[0] != 0 && b[0] < 240
	case a.IsLinkLocalUnicast():
		return false // on which of the host's links?
	}
	b := a.As16()
	return [12]byte(b[:12]) != [12]byte{}
}
