package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// maxForwarded bounds the connections of one forwarded port.
const maxForwarded = 512

// forward has the namespace reach, at addresses of its own loopback device,
// what listens on the host's at the same addresses. Nothing else is reached
// there.
func (n *Network) forward(list []netip.AddrPort) error {
	for _, at := range list {
		if !at.Addr().IsLoopback() {
			return fmt.Errorf("forwarded address %s: not one of a loopback device", at)
		}
		f := &forwarder{to: at, slots: make(chan struct{}, maxForwarded)}
		f.ctx, f.cancel = context.WithCancel(context.Background())
		err := onOwnThread(func() (err error) {
			if err = unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err == nil {
				f.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			}
			return err
		})
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			f.cancel() // a kernel without IPv6: then nobody asks there either
			continue
		}
		if err != nil {
			f.cancel()
			return fmt.Errorf("forwarded address %s: %w", at, err)
		}
		f.wg.Go(f.accept)
		n.onClose(f.close)
	}
	return nil
}

// forwarder carries the connections of one port.
type forwarder struct {
	to       netip.AddrPort
	listener *net.TCPListener
	ctx      context.Context
	cancel   context.CancelFunc
	slots    chan struct{}
	wg       sync.WaitGroup
}

func (f *forwarder) close() error {
	f.cancel()
	f.listener.Close()
	f.wg.Wait()
	return nil
}

func (f *forwarder) accept() {
	for {
		c, err := f.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		select {
		case f.slots <- struct{}{}: // more wait in the listener's queue
		case <-f.ctx.Done():
			c.Close()
			return
		}
		f.wg.Go(func() {
			defer func() { <-f.slots }()
			defer c.Close()
			defer context.AfterFunc(f.ctx, func() { c.Close() })()
			f.carry(c)
		})
	}
}

// carry dials from the host's namespace, which this process never leaves with
// threads that others use.
func (f *forwarder) carry(inside *net.TCPConn) {
	var d net.Dialer
	c, err := d.DialContext(f.ctx, "tcp", f.to.String())
	if err != nil {
		inside.SetLinger(0) // seen as a broken connection, not as an empty answer
		return
	}
	outside := c.(*net.TCPConn)
	defer outside.Close()
	defer context.AfterFunc(f.ctx, func() { outside.Close() })()
	join(inside, outside)
}

// join copies both ways until both directions have ended; each end is passed
// on by itself.
func join(a, b *net.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(b, a)
		b.CloseWrite()
	}()
	_, _ = io.Copy(a, b)
	a.CloseWrite()
	<-done
}
