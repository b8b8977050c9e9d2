package usernet

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// silence is how long a conversation by datagrams may be silent before it is
// forgotten; RFC 4787 section 4.3 asks for two minutes at least.
const silence = 2 * time.Minute

// maxDatagram is the longest that UDP can carry.
const maxDatagram = 65535

// converse is called for the first datagram of an address pair, on the
// goroutine that reads the device: it must not wait. False says that
// nobody is there, which the sender is told.
func (n *Stack) converse(r *udp.ForwarderRequest) bool {
	id := r.ID()
	t, ok := n.resolve(address(id.LocalAddress), id.LocalPort)
	if !ok || n.ctx.Err() != nil {
		return false
	}
	if n.conversations.Add(1) > n.most {
		n.conversations.Add(-1)
		return true
	}
	var queue waiter.Queue
	endpoint, e := r.CreateEndpoint(&queue)
	if e != nil {
		n.conversations.Add(-1)
		return true
	}
	inside := gonet.NewUDPConn(&queue, endpoint)
	if !n.work.begin() {
		n.conversations.Add(-1)
		inside.Close()
		return true
	}
	go func() {
		defer n.work.done()
		defer n.conversations.Add(-1)
		defer inside.Close()
		stop := context.AfterFunc(n.ctx, func() { inside.Close() })
		defer stop()
		if t.dns {
			n.answer(inside)
			return
		}
		outside, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(t.addr))
		if err != nil {
			return
		}
		defer outside.Close()
		stopOutside := context.AfterFunc(n.ctx, func() { outside.Close() })
		defer stopOutside()
		exchange(inside, outside)
	}()
	return true
}

// exchange carries datagrams until neither side has sent one for a while.
func exchange(inside, outside net.Conn) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	pump := func(to, from net.Conn) {
		buf := make([]byte, maxDatagram)
		for {
			from.SetReadDeadline(time.Unix(0, last.Load()).Add(silence))
			k, err := from.Read(buf)
			if timeout(err) && time.Since(time.Unix(0, last.Load())) < silence {
				continue // the other side has spoken meanwhile
			}
			if refused(err) {
				continue // an ICMP error: the next datagram may do better
			}
			if err != nil {
				return
			}
			last.Store(time.Now().UnixNano())
			// What cannot be sent is lost, as datagrams may be.
			_, _ = to.Write(buf[:k])
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pump(outside, inside)
		outside.Close()
	}()
	pump(inside, outside)
	inside.Close()
	<-done
}
