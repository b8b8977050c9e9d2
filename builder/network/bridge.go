package network

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/netlink"
	"github.com/stratabuild/strata/define"
)

// openBridge makes a pair of devices, one end of which is the namespace's,
// and has the kernel masquerade what comes from there. The pair goes with the
// namespace, the table with its socket: nothing is left however we end.
func openBridge(o Options, h host) (*Network, error) {
	if o.Rootless {
		return nil, fmt.Errorf("network bridge: devices on the host are root's to make; use --network private: %w", define.ErrUnsupported)
	}
	six := h.own6.IsValid() && forwards("ipv6")
	if !forwards("ipv4") {
		return nil, fmt.Errorf("network bridge: this host does not forward (sysctl net.ipv4.ip_forward is 0); set it to 1, "+
			"or use --network private: %w", define.ErrUnsupported)
	}
	s, err := netlink.Dial(netlink.Route)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	taken, err := s.Prefixes(false)
	if err != nil {
		return nil, fmt.Errorf("network bridge: routes of the host: %w", err)
	}
	p, err := bridgePlan(taken, six)
	if err != nil {
		return nil, err
	}
	n := &Network{kind: "bridge", gateway: p.gateways[0]}
	name := deviceNameOnHost()
	if err := n.masquerade(name); err != nil {
		return nil, err
	}
	if n.namespace, err = p.pair(s, name, h.mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("network bridge: %w", err), n.Close())
	}
	n.onClose(n.namespace.Close) // and the pair with it, once no step is there
	if err := n.relayLoopbackDNS(h); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// masquerade makes the table, which lives as long as its socket.
func (n *Network) masquerade(device string) error {
	s, err := netlink.Dial(netlink.Netfilter)
	if err != nil {
		return err
	}
	if err := s.Masquerade(device, device); err != nil {
		s.Close()
		return fmt.Errorf("network bridge: %w; it needs CAP_NET_ADMIN and Linux 5.12 with nf_tables: %w", err, define.ErrUnsupported)
	}
	n.onClose(func() error { return closeLater(s.Detach()) })
	return nil
}

// leastMTU and mostMTU are what a device that carries IPv6 may have (RFC 8200
// section 5), and what a veth device can.
const (
	leastMTU = 1280
	mostMTU  = 65535
)

// pair makes a namespace and the pair, whose end on the host is called name.
// Its packets are no larger than those of the way out: what is answered to
// larger segments might not get through on its way here, without a word.
func (p plan) pair(host *netlink.Socket, name string, mtu uint32) (namespace *os.File, err error) {
	if mtu != 0 { // else the kernel's own choice, 1500
		mtu = min(max(mtu, leastMTU), mostMTU)
	}
	err = onOwnThread(func() error {
		if namespace, err = unshare(); err != nil {
			return err
		}
		b := &netlink.Batch{}
		b.AddVeth(netlink.Veth{Name: name, MTU: mtu, Up: true}, netlink.Veth{Name: deviceName, MTU: mtu, Index: deviceIndex}, int(namespace.Fd()))
		if err := host.Do(b); err != nil {
			return err
		}
		b = &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		b.SetLink(deviceIndex, 0)
		p.configure(b, false)
		return do(b)
	})
	if err == nil {
		err = p.hostSide(host, name)
	}
	if err != nil && namespace != nil {
		namespace.Close() // and the pair with it
		namespace = nil
	}
	return namespace, err
}

// hostSide gives the host's end the gateways' addresses.
func (p plan) hostSide(s *netlink.Socket, name string) error {
	index, err := deviceNumber(name)
	if err != nil {
		return err
	}
	b := &netlink.Batch{}
	for i, g := range p.gateways {
		b.AddAddress(index, netip.PrefixFrom(g, p.peers[i].Bits()))
	}
	if err := s.Do(b); err != nil {
		return err
	}
	// It was switched on before its peer: until a worker of the kernel's has
	// noticed that one, it drops what it is to send.
	for range 100 {
		if r, err := askDevice(name, unix.SIOCGIFFLAGS); err != nil || r.Uint16()&unix.IFF_RUNNING != 0 {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
	return nil
}

// deviceNumber returns the number of a device in this thread's namespace.
func deviceNumber(name string) (int32, error) {
	r, err := askDevice(name, unix.SIOCGIFINDEX)
	if err != nil {
		return 0, err
	}
	return int32(r.Uint32()), nil
}

// askDevice asks a device of this thread's namespace (netdevice(7)).
func askDevice(name string, what uint) (*unix.Ifreq, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, what, r)
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return r, nil
}

// deviceNameOnHost is one that nobody else has; IFNAMSIZ leaves 15 bytes.
func deviceNameOnHost() string {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return "strata-" + hex.EncodeToString(b[:])
}

// forwards reports whether packets that come in by a new device are forwarded.
func forwards(family string) bool {
	b, err := os.ReadFile("/proc/sys/net/" + family + "/conf/all/forwarding")
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// pools are where bridges take their subnets from.
var pools = [...]netip.Prefix{
	netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 8),
	netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16}), 12),
	netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168}), 16),
	netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15),
}

// bridgePlan takes four addresses at random, since other builds choose at the
// same time, that no route of the host's is about.
func bridgePlan(taken []netip.Prefix, six bool) (plan, error) {
	for _, pool := range pools {
		for range 32 {
			var r [8]byte
			rand.Read(r[:])
			base := pool.Addr().As4()
			for i := range base {
				// The bits that the pool leaves free; the last two number the ends.
				keep := max(0, min(8, pool.Bits()-8*i))
				base[i] |= r[i] & (0xff >> keep)
			}
			base[3] &^= 3
			subnet := netip.PrefixFrom(netip.AddrFrom4(base), 30)
			if slices.ContainsFunc(taken, subnet.Overlaps) {
				continue
			}
			gw, peer := base, base
			gw[3] |= 1
			peer[3] |= 2
			p := plan{gateways: []netip.Addr{netip.AddrFrom4(gw)}, peers: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(peer), 30)}}
			if six {
				// A random global ID, as RFC 4193 section 3.2 wants it.
				local := [16]byte{0: 0xfd, 1: r[3], 2: r[4], 3: r[5], 4: r[6], 5: r[7], 15: 1}
				p.gateways = append(p.gateways, netip.AddrFrom16(local))
				local[15] = 2
				p.peers = append(p.peers, netip.PrefixFrom(netip.AddrFrom16(local), 64))
			}
			return p, nil
		}
	}
	return plan{}, fmt.Errorf("network bridge: the host has routes to nearly all private addresses; use --network private: %w", define.ErrUnsupported)
}

// obstacle names a firewall that may drop what the kernel forwards for us; ""
// is none that is known.
func obstacle() string {
	if b, err := os.ReadFile("/proc/thread-self/net/ip_tables_names"); err == nil && strings.Contains("\n"+string(b), "\nfilter\n") {
		return "iptables (legacy)"
	}
	s, err := netlink.Dial(netlink.Netfilter)
	if err != nil {
		return ""
	}
	defer s.Close()
	chains, err := s.ForwardChains()
	if err != nil {
		return fmt.Sprintf("nftables (%v)", err)
	}
	for _, c := range chains {
		if c.Drops || c.Table == "firewalld" {
			return fmt.Sprintf("chain %s of table %s %s", c.Name, c.Family, c.Table)
		}
	}
	return ""
}
