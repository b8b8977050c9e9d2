package usernet

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// echoTime is how long an echo may take to come back.
const echoTime = 10 * time.Second

// echoLink takes echo requests out before the stack sees them: it would answer
// them itself, for any address, whether that exists or not.
type echoLink struct {
	stack.LinkEndpoint
	n    *Stack
	next stack.NetworkDispatcher
}

// GSOMaxSize and SupportedGSO are the link's, which the embedded interface
// does not show.
func (l *echoLink) GSOMaxSize() uint32 {
	if g, ok := l.LinkEndpoint.(stack.GSOEndpoint); ok {
		return g.GSOMaxSize()
	}
	return 0
}

func (l *echoLink) SupportedGSO() stack.SupportedGSO {
	if g, ok := l.LinkEndpoint.(stack.GSOEndpoint); ok {
		return g.SupportedGSO()
	}
	return stack.GSONotSupported
}

// Attach puts this between the link and the stack.
func (l *echoLink) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.LinkEndpoint.Attach(nil)
		return
	}
	l.next = d
	l.LinkEndpoint.Attach(l)
}

// DeliverLinkPacket is of no use to a stack without packet sockets.
func (l *echoLink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// DeliverNetworkPacket takes what came from the namespace.
func (l *echoLink) DeliverNetworkPacket(p tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	e, ok := readEcho(p, pkt)
	if !ok {
		l.next.DeliverNetworkPacket(p, pkt)
		return
	}
	for _, g := range l.n.o.Gateways {
		if e.to == g {
			l.next.DeliverNetworkPacket(p, pkt)
			return
		}
	}
	if !allowed(e.to) {
		return
	}
	select {
	case l.n.echo <- struct{}{}:
	default:
		return
	}
	if !l.n.work.begin() {
		<-l.n.echo
		return
	}
	e.message = append([]byte(nil), e.message...)
	go func() {
		defer l.n.work.done()
		defer func() { <-l.n.echo }()
		l.n.passEcho(e)
	}()
}

// echo is an echo request: an ICMP message without what is the IP header's.
type echo struct {
	from, to netip.Addr
	message  []byte
}

// Types of ICMP messages.
const (
	echoRequest4 = 8
	echoReply4   = 0
	echoRequest6 = 128
	echoReply6   = 129
)

// readEcho reads a packet that is a whole echo request.
func readEcho(p tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) (e echo, ok bool) {
	switch p {
	case header.IPv4ProtocolNumber:
		b, ok := pkt.Data().PullUp(header.IPv4MinimumSize)
		if !ok || header.IPv4(b).Protocol() != uint8(header.ICMPv4ProtocolNumber) {
			return e, false
		}
		return echo4(pkt.Data().AsRange().ToSlice())
	case header.IPv6ProtocolNumber:
		b, ok := pkt.Data().PullUp(header.IPv6MinimumSize)
		if !ok || header.IPv6(b).NextHeader() != uint8(header.ICMPv6ProtocolNumber) {
			return e, false
		}
		return echo6(pkt.Data().AsRange().ToSlice())
	}
	return e, false
}

func echo4(packet []byte) (e echo, ok bool) {
	h := header.IPv4(packet)
	if !h.IsValid(len(packet)) || h.FragmentOffset() != 0 || h.Flags()&header.IPv4FlagMoreFragments != 0 {
		return e, false
	}
	e = echo{from: address(h.SourceAddress()), to: address(h.DestinationAddress()), message: h.Payload()}
	return e, len(e.message) >= 8 && e.message[0] == echoRequest4
}

func echo6(packet []byte) (e echo, ok bool) {
	h := header.IPv6(packet)
	if !h.IsValid(len(packet)) {
		return e, false
	}
	e = echo{from: address(h.SourceAddress()), to: address(h.DestinationAddress()).Unmap(), message: h.Payload()}
	return e, len(e.message) >= 8 && e.message[0] == echoRequest6
}

// passEcho sends the request by a ping socket, which icmp(7) gives to the
// groups of net.ipv4.ping_group_range. Without one the request is lost.
func (n *Stack) passEcho(e echo) {
	domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if !e.to.Is4() {
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "echo")
	defer f.Close()
	var to unix.Sockaddr
	if e.to.Is4() {
		to = &unix.SockaddrInet4{Addr: e.to.As4()}
	} else {
		to = &unix.SockaddrInet6{Addr: e.to.As16()}
	}
	if unix.Connect(fd, to) != nil {
		return
	}
	defer context.AfterFunc(n.ctx, func() { f.Close() })()
	f.SetDeadline(time.Now().Add(echoTime))
	if _, err := f.Write(e.message); err != nil {
		return
	}
	buf := make([]byte, maxDatagram)
	for {
		k, err := f.Read(buf)
		if err != nil {
			return
		}
		// The kernel has put a number of its own for the sender's.
		if k >= 8 && (buf[0] == echoReply4 || buf[0] == echoReply6) && buf[6] == e.message[6] && buf[7] == e.message[7] {
			buf[4], buf[5] = e.message[4], e.message[5]
			n.replyEcho(e, buf[:k])
			return
		}
	}
}

// replyEcho gives the namespace an answer from where it asked.
func (n *Stack) replyEcho(e echo, message []byte) {
	local, remote := tcpip.AddrFromSlice(e.to.AsSlice()), tcpip.AddrFromSlice(e.from.AsSlice())
	route, err := n.stack.FindRoute(nic, local, remote, protocol(e.to), false)
	if err != nil {
		return
	}
	defer route.Release()
	transport := header.ICMPv4ProtocolNumber
	message[2], message[3] = 0, 0
	var sum uint16
	if e.to.Is4() {
		sum = checksum.Checksum(message, 0)
	} else {
		transport = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(transport, local, remote, uint16(len(message)))
		sum = checksum.Checksum(message, sum)
	}
	binary.BigEndian.PutUint16(message[2:], ^sum)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(message),
	})
	defer pkt.DecRef()
	_ = route.WritePacket(stack.NetworkHeaderParams{Protocol: transport, TTL: 64}, pkt)
}
