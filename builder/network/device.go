package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/netlink"
	"github.com/stratabuild/strata/builder/network/usernet"
	"github.com/stratabuild/strata/define"
)

// deviceName is what the namespace's device is called, and deviceIndex its
// number there: the first after the loopback device.
const (
	deviceName  = "eth0"
	deviceIndex = 2
)

// Locally administered hardware addresses (IEEE 802c) of the two ends. Nobody
// else is on the wire.
var (
	stackMAC  = [6]byte{0x02, 's', 't', 'r', 'a', 1}
	deviceMAC = [6]byte{0x02, 's', 't', 'r', 'a', 2}
)

// device is a namespace with a device whose packets come out of fd.
type device struct {
	namespace *os.File
	fd        int
	tun       bool
}

// newDevice makes a namespace with a device that has the addresses of plan.
// Pairs of Ethernet devices and packet sockets need no more than the
// namespace itself; where the kernel has none, a tun device serves.
func newDevice(p plan) (device, error) {
	d, err := newPacketDevice(p)
	if err == nil || errors.Is(err, errNoNamespace) {
		return d, err
	}
	t, tunErr := newTunDevice(p)
	if tunErr != nil {
		return device{}, fmt.Errorf("%w, and %w", err, tunErr)
	}
	return t, nil
}

// errNoNamespace says that not even a namespace could be made.
var errNoNamespace = errors.New("")

// newPacketDevice makes two namespaces: one for the steps, and one for the
// other end of their device, where a packet socket takes the frames. Nobody
// ever enters that one; the socket keeps it.
func newPacketDevice(p plan) (device, error) {
	d := device{fd: -1}
	err := onOwnThread(func() error {
		far, err := unshare()
		if err != nil {
			return fmt.Errorf("%w%w", errNoNamespace, err)
		}
		defer far.Close()
		if d.fd, err = packetSocket(); err != nil {
			return err
		}
		farSocket, err := netlink.Dial(netlink.Route)
		if err != nil {
			return err
		}
		defer farSocket.Close()
		if d.namespace, err = unshare(); err != nil {
			return fmt.Errorf("%w%w", errNoNamespace, err)
		}
		b := &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		b.AddVeth(
			netlink.Veth{Name: deviceName, Index: deviceIndex, MTU: usernet.MTU, MAC: deviceMAC},
			netlink.Veth{Name: "far", Index: deviceIndex, MTU: usernet.MTU, MAC: stackMAC},
			int(far.Fd()))
		if err := do(b); err != nil {
			return err
		}
		// The far end first: the device that is switched on last loses no
		// packet (the kernel tells the other one by a queue of work).
		b = &netlink.Batch{}
		b.SetLink(deviceIndex, 0)
		if err := farSocket.Do(b); err != nil {
			return err
		}
		sa := &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: deviceIndex}
		if err := unix.Bind(d.fd, sa); err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		b = &netlink.Batch{}
		b.SetLink(deviceIndex, 0)
		p.configure(b, true)
		return do(b)
	})
	if err != nil {
		d.close()
		return device{}, err
	}
	return d, nil
}

// socketBuffer is how many bytes may wait in each direction.
const socketBuffer = 4 << 20

// packetSocket opens a packet socket that takes nothing yet. Frames carry a
// virtio header, so that neither side computes checksums.
func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w: %w", err, define.ErrUnsupported)
	}
	for _, o := range []struct {
		level, name, value int
		wish               bool
	}{
		{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1, false},
		{unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1, true},
		// Beyond net.core.rmem_max and wmem_max for those who may, else up to
		// them; usernet fits its window to what was given.
		{unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer, true},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer, true},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer, true},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer, true},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil && !o.wish {
			unix.Close(fd)
			return -1, fmt.Errorf("packet socket: option %d: %w: %w", o.name, err, define.ErrUnsupported)
		}
	}
	return fd, nil
}

// newTunDevice makes a namespace with a tun device.
func newTunDevice(p plan) (device, error) {
	d := device{fd: -1, tun: true}
	err := onOwnThread(func() error {
		var err error
		if d.namespace, err = unshare(); err != nil {
			return err
		}
		// The device belongs to the namespace that it is opened in.
		if d.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("/dev/net/tun: %w; load the module tun and make the device accessible (chmod 666 /dev/net/tun, "+
				"in a container --device /dev/net/tun): %w", err, define.ErrUnsupported)
		}
		r, err := unix.NewIfreq(deviceName)
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, r); err != nil {
			return fmt.Errorf("tun device: %w", err)
		}
		b := &netlink.Batch{}
		b.SetLink(netlink.LoopbackIndex, 0)
		b.SetLink(deviceIndex, usernet.MTU)
		p.configure(b, false)
		return do(b)
	})
	if err != nil {
		d.close()
		return device{}, err
	}
	return d, nil
}

// do executes a batch in the calling thread's namespace.
func do(b *netlink.Batch) error {
	s, err := netlink.Dial(netlink.Route)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Do(b); err != nil {
		return fmt.Errorf("set up the network: %w", err)
	}
	return nil
}

func (d device) close() {
	if d.namespace != nil {
		d.namespace.Close()
	}
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// bigEndian16 is htons(3).
func bigEndian16(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// plan is the addresses of a private network.
type plan struct {
	peers    []netip.Prefix // of the namespace's device
	gateways []netip.Addr   // in the same order
}

// configure adds addresses, routes and, where they are to be fixed, the
// gateways' hardware addresses.
func (p plan) configure(b *netlink.Batch, neighbours bool) {
	for i, a := range p.peers {
		b.AddAddress(deviceIndex, a)
		if neighbours {
			b.AddNeighbour(deviceIndex, p.gateways[i], stackMAC)
		}
		b.AddDefaultRoute(deviceIndex, p.gateways[i])
	}
}
