package network

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// host is what the host's network is like.
type host struct {
	// own are the addresses that the host uses towards the world: IPv4 and
	// IPv6; the zero address says that there is no way out.
	own4, own6 netip.Addr
	// mtu is the largest packet of the way out, the smaller of the families';
	// 0 when there is no way out.
	mtu       uint32
	resolvers []netip.AddrPort
	// routes are the IPv4 destinations that the host has routes to, the
	// default route aside.
	routes []netip.Prefix
}

func lookAtHost() host {
	h := host{resolvers: readResolvers("/etc/resolv.conf")}
	var mtu6 uint32
	h.own4, h.mtu = wayOut(unix.AF_INET)
	if h.own6, mtu6 = wayOut(unix.AF_INET6); h.mtu == 0 || mtu6 != 0 && mtu6 < h.mtu {
		h.mtu = mtu6
	}
	if f, err := os.Open("/proc/thread-self/net/route"); err == nil {
		h.routes = readRoutes(bufio.NewScanner(f))
		f.Close()
	}
	return h
}

// wayOut asks the kernel which address packets to the world would have, and
// how large they may be: connecting a datagram socket sends nothing. The
// addresses are those of documentation (RFC 5737, RFC 3849), which nobody has
// a route of their own to.
func wayOut(family int) (own netip.Addr, mtu uint32) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return own, 0
	}
	defer unix.Close(fd)
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 1}, Port: 9}
	if family == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Addr: [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}, Port: 9}
	}
	if unix.Connect(fd, to) != nil {
		return own, 0
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return own, 0
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		own = netip.AddrFrom4(sa.Addr)
	case *unix.SockaddrInet6:
		own = netip.AddrFrom16(sa.Addr)
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	if v, err := unix.GetsockoptInt(fd, level, option); err == nil && v > 0 {
		mtu = uint32(v)
	}
	return own, mtu
}

// readResolvers reads the name servers of a resolv.conf(5). Without any, the
// one on the loopback device is the default.
func readResolvers(file string) []netip.AddrPort {
	var out []netip.AddrPort
	text, err := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && len(out) < 3 {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	if len(out) == 0 && (err == nil || errors.Is(err, os.ErrNotExist)) {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return out
}

// readRoutes reads /proc/net/route (proc(5)): numbers in hexadecimal, in the
// machine's byte order.
func readRoutes(lines *bufio.Scanner) []netip.Prefix {
	var out []netip.Prefix
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 {
			continue
		}
		dest, ok1 := hexAddr(f[1])
		mask, ok2 := hexAddr(f[7])
		if !ok1 || !ok2 {
			continue // the heading
		}
		bits := 0
		for _, b := range mask.As4() {
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
		}
		if bits > 0 {
			out = append(out, netip.PrefixFrom(dest, bits))
		}
	}
	return out
}

func hexAddr(s string) (netip.Addr, bool) {
	var b [4]byte
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != 4 || len(s) != 8 {
		return netip.Addr{}, false
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b[:]))
	return netip.AddrFrom4(a), true
}

// reach is where the gateway of a family leads.
func (h host) reach(v4, loopback bool) netip.Addr {
	switch {
	case loopback && v4:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case loopback:
		return netip.IPv6Loopback()
	case v4 && !h.own4.IsLoopback():
		return h.own4
	case !v4 && !h.own6.IsLoopback():
		return h.own6
	}
	return netip.Addr{}
}

// subnets are what private networks choose from: those that other programs
// give containers come last, and 198.18.0.0/15 (RFC 2544) is nobody's.
var subnets = [...]string{
	"10.0.2.0/24", "10.143.91.0/24", "172.29.143.0/24", "192.168.219.0/24", "10.217.54.0/24", "172.22.91.0/24", "198.18.91.0/24",
}

// freeSubnet returns a subnet that none of the routes touches.
func freeSubnet(routes []netip.Prefix) (netip.Prefix, error) {
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		free := true
		for _, r := range routes {
			free = free && !r.Overlaps(p)
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("private network: the host has routes to all of %s; use --network host: %w",
		strings.Join(subnets[:], ", "), define.ErrUnsupported)
}

// plan chooses addresses. IPv6 is left out where the host has none: programs
// would try it first, and wait.
func (h host) plan() (plan, error) {
	subnet, err := freeSubnet(h.routes)
	if err != nil {
		return plan{}, err
	}
	b := subnet.Addr().As4()
	at := func(last byte) netip.Addr { b[3] = last; return netip.AddrFrom4(b) }
	p := plan{gateways: []netip.Addr{at(2)}, peers: []netip.Prefix{netip.PrefixFrom(at(100), subnet.Bits())}}
	if h.own6.IsValid() && !h.own6.IsLoopback() {
		// Of RFC 4193's kind, and so that the addresses of the two families
		// differ alike.
		six := func(last byte) netip.Addr {
			return netip.AddrFrom16([16]byte{0: 0xfd, 1: 's', 2: 't', 3: 'r', 4: b[0], 5: b[1], 6: b[2], 15: last})
		}
		p.gateways = append(p.gateways, six(2))
		p.peers = append(p.peers, netip.PrefixFrom(six(100), 64))
	}
	return p, nil
}
