package usernet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// questionTime is how long each name server may take. Resolvers ask again
// after five seconds (resolv.conf(5)).
const questionTime = 4 * time.Second

// answer passes each datagram of the conversation to a name server as a
// question, and its answer back.
func (n *Stack) answer(inside *gonet.UDPConn) {
	buf := make([]byte, maxDatagram)
	for {
		inside.SetReadDeadline(time.Now().Add(30 * time.Second))
		k, err := inside.Read(buf)
		if err != nil {
			return
		}
		question := append([]byte(nil), buf[:k]...)
		select {
		case n.dns <- struct{}{}:
		default:
			continue // too many at once: it will ask again
		}
		if !n.work.begin() {
			<-n.dns
			return
		}
		go func() {
			defer n.work.done()
			defer func() { <-n.dns }()
			if a := Ask(n.ctx, n.o.Resolvers, question); a != nil {
				_, _ = inside.Write(a)
			}
		}()
	}
}

// Ask sends a question to the name servers in turn, each from a port of its
// own, and returns the first answer that has the question's number; nil when
// there is none.
func Ask(ctx context.Context, servers []netip.AddrPort, question []byte) []byte {
	if len(question) < 12 { // no DNS header (RFC 1035 section 4.1.1)
		return nil
	}
	buf := make([]byte, maxDatagram)
	for _, s := range servers {
		if a := askOne(ctx, s, question, buf); a != nil {
			return a
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

func askOne(ctx context.Context, server netip.AddrPort, question, buf []byte) []byte {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(questionTime))
	if _, err := c.Write(question); err != nil {
		return nil
	}
	for {
		k, err := c.Read(buf)
		if err != nil {
			return nil
		}
		if k >= 12 && buf[0] == question[0] && buf[1] == question[1] {
			return buf[:k]
		}
	}
}

func timeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
