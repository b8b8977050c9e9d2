package usernet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// MTU is the largest packet of the device. Connections end here, so no other
// network's limit matters, and few large packets cost less than many small
// ones: at 1500 bytes a tenth of the throughput is left.
const MTU = 65520

// Options describe a stack.
type Options struct {
	// FD carries packets: a packet socket (packet(7), Ethernet frames with a
	// virtio header), or a tun device (IP packets) when Tun is set. It is
	// closed with the stack, or when Open fails.
	FD  int
	Tun bool
	// MAC is the stack's hardware address and PeerMAC that of the
	// namespace's device; with Tun there are none.
	MAC, PeerMAC [6]byte
	// Gateways are the addresses of the stack, one of a family at most, and
	// Peers those of the namespace's device, in the same order.
	Gateways, Peers []netip.Addr
	// Host is where the gateways lead, in the same order: an address of the
	// host's. The zero address leads nowhere.
	Host []netip.Addr
	// Resolvers are the name servers behind port 53 of the gateways.
	Resolvers []netip.AddrPort
	// CloseFD closes FD; nil is close(2).
	CloseFD func(fd int) error
}

// Stack is a running network.
type Stack struct {
	o      Options
	stack  *stack.Stack
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   work
	echo   chan struct{} // slots of echo requests under way
	dns    chan struct{} // slots of questions under way
	// connections and conversations (by datagrams) are those that are open,
	// and most is how many of each there may be.
	connections, conversations atomic.Int64
	most                       int64
}

// work counts goroutines, and takes no more once it is waited for.
type work struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// begin reports whether one more may begin; done is then to be called.
func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.wg.Add(1)
	return true
}

func (w *work) done() { w.wg.Done() }

func (w *work) wait() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wg.Wait()
}

// nic is the number of the stack's only device.
const nic = 1

// Limits of what one build's network may keep open in this process.
const (
	maxConnecting = 512
	maxQuestions  = 256
	maxEchoes     = 64
)

// mostSockets is a quarter of the descriptors that this process may have: a
// step must not take those away that its build needs.
func mostSockets() int64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 256
	}
	return int64(min(r.Cur/4, 8192))
}

// Open starts a stack.
func Open(o Options) (_ *Stack, err error) {
	n := &Stack{o: o, echo: make(chan struct{}, maxEchoes), dns: make(chan struct{}, maxQuestions)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.most = mostSockets()
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	link, err := newLink(o)
	if err != nil {
		return nil, fmt.Errorf("user-mode network: %w", err)
	}
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		HandleLocal:        false,
	})
	if err := n.configure(&echoLink{LinkEndpoint: link, n: n}); err != nil {
		return nil, fmt.Errorf("user-mode network: %w", err)
	}
	return n, nil
}

// newLink makes gVisor's end of the device.
func newLink(o Options) (stack.LinkEndpoint, error) {
	lo := fdbased.Options{
		FDs: []int{o.FD}, MTU: MTU,
		// Packets have not left the machine.
		RXChecksumOffload: true,
	}
	if !o.Tun {
		lo.EthernetHeader = true
		lo.Address = tcpip.LinkAddress(o.MAC[:])
		lo.PacketDispatchMode = fdbased.RecvMMsg
		lo.GSOMaxSize = 64 << 10
	}
	return fdbased.New(&lo)
}

// configure makes the stack answer for all addresses.
func (n *Stack) configure(link stack.LinkEndpoint) error {
	s := n.stack
	if e := n.tune(); e != nil {
		return fmt.Errorf("options: %s", e)
	}
	n.handlers()
	if e := s.CreateNICWithOptions(nic, link, stack.NICOptions{}); e != nil {
		return fmt.Errorf("device: %s", e)
	}
	if e := s.SetPromiscuousMode(nic, true); e != nil {
		return fmt.Errorf("device: %s", e)
	}
	if e := s.SetSpoofing(nic, true); e != nil {
		return fmt.Errorf("device: %s", e)
	}
	var routes []tcpip.Route
	for i, a := range n.o.Gateways {
		address := tcpip.AddrFromSlice(a.AsSlice())
		if e := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          protocol(a),
			AddressWithPrefix: address.WithPrefix(),
		}, stack.AddressProperties{}); e != nil {
			return fmt.Errorf("address %s: %s", a, e)
		}
		all, err := tcpip.NewSubnet(tcpip.AddrFromSlice(make([]byte, a.BitLen()/8)), tcpip.MaskFromBytes(make([]byte, a.BitLen()/8)))
		if err != nil {
			return err
		}
		routes = append(routes, tcpip.Route{Destination: all, NIC: nic})
		if n.o.Tun {
			continue
		}
		peer := tcpip.AddrFromSlice(n.o.Peers[i].AsSlice())
		if e := s.AddStaticNeighbor(nic, protocol(a), peer, tcpip.LinkAddress(n.o.PeerMAC[:])); e != nil {
			return fmt.Errorf("neighbour %s: %s", peer, e)
		}
	}
	s.SetRouteTable(routes)
	return nil
}

// window is the most that a connection may have under way towards us: what the
// socket holds of it, headers and rounding included. As a user that may be
// little (net.core.rmem_max), and with a larger window a quarter of the
// segments were lost there and sent again.
func (n *Stack) window() int {
	const least, most = 128 << 10, 8 << 20
	if n.o.Tun {
		return most
	}
	held, err := unix.GetsockoptInt(n.o.FD, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return least
	}
	return max(least, min(most, held/4*3))
}

// tune sets buffers that keep a 64 KiB packet from filling the window.
func (n *Stack) tune() tcpip.Error {
	window := n.window()
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 64 << 10, Default: min(window, 2<<20), Max: window}
	if e := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive); e != nil {
		return e
	}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 64 << 10, Default: 2 << 20, Max: 8 << 20}
	if e := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send); e != nil {
		return e
	}
	sack := tcpip.TCPSACKEnabled(true)
	return n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
}

func (n *Stack) handlers() {
	forward := tcp.NewForwarder(n.stack, 0, maxConnecting, n.connect)
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forward.HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.converse).HandlePacket)
}

// Close ends all connections and closes the descriptor.
func (n *Stack) Close() error {
	n.cancel()
	if n.stack != nil {
		n.stack.RemoveNIC(nic)
		n.stack.Close()
		n.work.wait()
		n.stack.Wait()
	}
	if n.o.CloseFD != nil {
		return n.o.CloseFD(n.o.FD)
	}
	return unix.Close(n.o.FD)
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// address turns gVisor's kind into the usual one.
func address(a tcpip.Address) netip.Addr {
	out, _ := netip.AddrFromSlice(a.AsSlice())
	return out
}
