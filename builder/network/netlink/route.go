package netlink

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ifInfo is struct ifinfomsg.
func ifInfo(index int32, flags, change uint32) []byte {
	b := make([]byte, 4, 16)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// Veth describes one end of a pair of devices.
type Veth struct {
	Name string
	MTU  uint32
	MAC  [6]byte // zero: the kernel's choice
	// Up switches it on. Of a pair, the end that is switched on last works at
	// once, and the other soon after (Running).
	Up bool
	// Index is the device's number; 0 is the kernel's choice. A number of
	// one's own spares asking for it.
	Index int32
}

func (m *message) veth(v Veth) {
	m.text(unix.IFLA_IFNAME, v.Name)
	if v.MTU != 0 {
		m.u32(unix.IFLA_MTU, v.MTU)
	}
	if v.MAC != [6]byte{} {
		m.attr(unix.IFLA_ADDRESS, v.MAC[:])
	}
}

// vethInfoPeer is VETH_INFO_PEER of linux/veth.h.
const vethInfoPeer = 1

// AddVeth makes a pair: here in the socket's namespace; peer in the one of
// the descriptor, and off: the kernel opens no end before both are there.
func (b *Batch) AddVeth(here, peer Veth, peerNamespace int) {
	var flags uint32
	if here.Up {
		flags = unix.IFF_UP
	}
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifInfo(here.Index, flags, flags)...)
	m.veth(here)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.text(unix.IFLA_INFO_KIND, "veth")
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(vethInfoPeer, func() {
				m.b = append(m.b, ifInfo(peer.Index, 0, 0)...)
				m.veth(peer)
				m.u32(unix.IFLA_NET_NS_FD, uint32(peerNamespace))
			})
		})
	})
	b.add(m, "make the devices %s and %s", here.Name, peer.Name)
}

// SetLink switches a device on and sets its MTU; 0 leaves it.
func (b *Batch) SetLink(index int32, mtu uint32) {
	m := newMessage(unix.RTM_NEWLINK, 0, ifInfo(index, unix.IFF_UP, unix.IFF_UP)...)
	if mtu != 0 {
		m.u32(unix.IFLA_MTU, mtu)
	}
	b.add(m, "switch device %d on", index)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddress gives a device an address, without looking for duplicates.
func (b *Batch) AddAddress(index int32, p netip.Prefix) {
	fixed := []byte{family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	fixed = binary.NativeEndian.AppendUint32(fixed, uint32(index))
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed...)
	m.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	b.add(m, "address %s", p)
}

// AddDefaultRoute sends what has no other route to the gateway.
func (b *Batch) AddDefaultRoute(index int32, gateway netip.Addr) {
	m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0)
	m.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	m.u32(unix.RTA_OIF, uint32(index))
	b.add(m, "default route by %s", gateway)
}

// AddNeighbour says once and for all which hardware address a has.
func (b *Batch) AddNeighbour(index int32, a netip.Addr, mac [6]byte) {
	fixed := []byte{family(a), 0, 0, 0}
	fixed = binary.NativeEndian.AppendUint32(fixed, uint32(index))
	fixed = binary.NativeEndian.AppendUint16(fixed, unix.NUD_PERMANENT)
	fixed = append(fixed, 0, unix.RTN_UNICAST)
	m := newMessage(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed...)
	m.attr(unix.NDA_DST, a.AsSlice())
	m.attr(unix.NDA_LLADDR, mac[:])
	b.add(m, "neighbour %s", a)
}

// LoopbackIndex is the loopback device's number in every namespace.
const LoopbackIndex = 1

// Prefixes returns the destinations of all routes of a family but the
// default ones, in all tables.
func (s *Socket) Prefixes(v6 bool) ([]netip.Prefix, error) {
	f, size := byte(unix.AF_INET), 4
	if v6 {
		f, size = unix.AF_INET6, 16
	}
	m := newMessage(unix.RTM_GETROUTE, unix.NLM_F_DUMP, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	var out []netip.Prefix
	err := s.dump(m, func(kind uint16, body []byte) {
		if kind != unix.RTM_NEWROUTE || len(body) < unix.SizeofRtMsg || body[1] == 0 {
			return
		}
		bits := int(body[1])
		attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) bool {
			if kind != unix.RTA_DST || len(value) != size {
				return true
			}
			a, _ := netip.AddrFromSlice(value)
			if p, err := a.Prefix(bits); err == nil {
				out = append(out, p)
			}
			return false
		})
	})
	return out, err
}
