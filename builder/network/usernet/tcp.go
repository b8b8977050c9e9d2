package usernet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// connectTime is how long a connection may take to come about; the kernel
// itself would try for two minutes.
const connectTime = 60 * time.Second

// pieceSize is how much is carried at once.
const pieceSize = 256 << 10

// connect is called on a goroutine of its own for each connection that the
// namespace begins. It answers only when the host's connection stands, so
// that a refusal is seen as one.
func (n *Stack) connect(r *tcp.ForwarderRequest) {
	if !n.work.begin() {
		r.Complete(true)
		return
	}
	defer n.work.done()
	defer n.connections.Add(-1)
	if n.connections.Add(1) > n.most {
		r.Complete(true)
		return
	}
	id := r.ID()
	t, ok := n.resolve(address(id.LocalAddress), id.LocalPort)
	if !ok {
		r.Complete(true)
		return
	}
	outside, err := n.dial(t)
	if err != nil {
		// What is silent outside stays silent inside; the rest is refused.
		r.Complete(!errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, context.DeadlineExceeded))
		return
	}
	defer outside.Close()
	var queue waiter.Queue
	endpoint, e := r.CreateEndpoint(&queue)
	r.Complete(e != nil)
	if e != nil {
		return
	}
	inside := gonet.NewTCPConn(&queue, endpoint)
	defer inside.Close()
	stop := context.AfterFunc(n.ctx, func() {
		outside.Close()
		endpoint.Abort()
	})
	defer stop()
	carry(inside, outside)
}

// dial connects to where t says; to the resolvers in turn.
func (n *Stack) dial(t target) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, connectTime)
	defer cancel()
	list := []netip.AddrPort{t.addr}
	if t.dns {
		list = n.o.Resolvers
	}
	var first error
	for _, a := range list {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", a.String())
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// carry copies both ways until both ends have been closed. The end of one
// direction is passed on, and the other goes on.
func carry(inside *gonet.TCPConn, outside *net.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, pieceSize)
		if _, err := io.CopyBuffer(plainWriter{outside}, inside, buf); err != nil {
			// Reset, so that nobody takes half a stream for a whole one.
			outside.SetLinger(0)
			outside.Close()
			return
		}
		outside.CloseWrite()
	}()
	buf := make([]byte, pieceSize)
	if _, err := io.CopyBuffer(inside, plainReader{outside}, buf); err != nil {
		inside.SetDeadline(time.Unix(1, 0))
		outside.Close()
	} else {
		inside.CloseWrite()
	}
	<-done
}

// plainReader and plainWriter hide methods for which io.CopyBuffer would
// leave our buffer unused.
type plainReader struct{ io.Reader }
type plainWriter struct{ io.Writer }
