package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/network/usernet"
)

// relayAddress is where a relay listens inside the namespace: on its loopback
// device, whose other addresses are the steps' own.
var relayAddress = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// maxRelayed bounds the questions under way.
const maxRelayed = 256

// relayLoopbackDNS makes the host's resolver reachable where it is on the
// host's loopback device only, as those of systemd and dnsmasq are.
func (n *Network) relayLoopbackDNS(h host) error {
	if slices.ContainsFunc(h.resolvers, func(a netip.AddrPort) bool { return !a.Addr().Unmap().IsLoopback() }) {
		return nil // the host's configuration serves, less those
	}
	r, err := newRelay(n, h.resolvers)
	if err != nil {
		return fmt.Errorf("name server of the private network: %w", err)
	}
	n.onClose(r.close)
	n.dns = []netip.Addr{relayAddress}
	return nil
}

// relay passes questions from inside a namespace to name servers outside.
type relay struct {
	servers []netip.AddrPort
	udp     *net.UDPConn
	tcp     *net.TCPListener
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{}
	wg      sync.WaitGroup
}

func newRelay(n *Network, servers []netip.AddrPort) (*relay, error) {
	r := &relay{servers: servers, slots: make(chan struct{}, maxRelayed)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	at := netip.AddrPortFrom(relayAddress, 53)
	// A socket belongs to the namespace of the thread that makes it, whoever
	// uses it later.
	err := onOwnThread(func() error {
		if err := unix.Setns(int(n.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if r.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		r.tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.wg.Go(r.datagrams)
	r.wg.Go(r.streams)
	return r, nil
}

func (r *relay) close() error {
	r.cancel()
	if r.udp != nil {
		r.udp.Close()
	}
	if r.tcp != nil {
		r.tcp.Close()
	}
	r.wg.Wait()
	return nil
}

// take reports whether there is room for one more question.
func (r *relay) take() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *relay) datagrams() {
	buf := make([]byte, 64<<10)
	for {
		k, from, err := r.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !r.take() {
			continue
		}
		question := slices.Clone(buf[:k])
		r.wg.Go(func() {
			defer func() { <-r.slots }()
			if a := usernet.Ask(r.ctx, r.servers, question); a != nil {
				_, _ = r.udp.WriteToUDPAddrPort(a, from)
			}
		})
	}
}

func (r *relay) streams() {
	for {
		c, err := r.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if !r.take() {
			c.Close()
			continue
		}
		r.wg.Go(func() {
			defer func() { <-r.slots }()
			defer c.Close()
			defer context.AfterFunc(r.ctx, func() { c.Close() })()
			r.stream(c)
		})
	}
}

// stream carries one conversation, which servers end when it is silent
// (RFC 7766 section 6.2.3).
func (r *relay) stream(inside *net.TCPConn) {
	for _, s := range r.servers {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err := d.DialContext(r.ctx, "tcp", s.String())
		if err != nil {
			continue
		}
		defer c.Close()
		defer context.AfterFunc(r.ctx, func() { c.Close() })()
		end := time.Now().Add(time.Minute)
		c.SetDeadline(end)
		inside.SetDeadline(end)
		join(inside, c.(*net.TCPConn))
		return
	}
}
