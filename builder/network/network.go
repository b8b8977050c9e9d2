package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/stratabuild/strata/builder/network/usernet"
	"github.com/stratabuild/strata/define"
)

// Options say what network is wanted.
type Options struct {
	Mode Mode
	// Rootless: this process has no rights over the host's network.
	Rootless bool
	// Listener is told notes; nil is silence.
	Listener define.Listener
	// HostProc is the host's /proc where this process's own shows another pid
	// namespace; nil is /proc. Kind Process needs it.
	HostProc *os.File
	// Forward are ports on the host's loopback device that the namespace
	// reaches, at the same addresses. Of namespaces that exist (Path, Process)
	// they are refused.
	Forward []netip.AddrPort
}

// Network is a network namespace that steps join. It is safe for concurrent
// use.
type Network struct {
	namespace *os.File
	dns       []netip.Addr
	gateway   netip.Addr
	kind      string
	closers   []func() error
}

// Open makes the network. Its errors name what is missing and the remedy, and
// wrap define.ErrUnsupported where the host is at fault. Kinds Host and None
// are errors; Default is opened as Private is, and what to do where it fails
// is the caller's to say.
func Open(ctx context.Context, o Options) (*Network, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(o.Forward) > 0 && (o.Mode.Kind == Path || o.Mode.Kind == Process) {
		return nil, fmt.Errorf("network %s: ports are not forwarded into namespaces of others: %w", o.Mode.Kind, define.ErrInvalid)
	}
	n, err := openKind(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := n.forward(o.Forward); err != nil {
		return nil, errors.Join(fmt.Errorf("network %s: %w", n.kind, err), n.Close())
	}
	return n, nil
}

func openKind(ctx context.Context, o Options) (*Network, error) {
	switch o.Mode.Kind {
	case Default, Private:
		return openPrivate(o)
	case Bridge:
		n, err := openBridge(o, lookAtHost())
		if err == nil {
			if what := obstacle(); what != "" {
				define.Emit(o.Listener, define.Event{Kind: define.EventNote,
					Text: "network bridge: the firewall's " + what + " may drop what it does not know; if it does, use --network private"})
			}
		}
		return n, err
	case Path:
		return openPath(o)
	case Process:
		return openProcess(o)
	case Pasta:
		return openPasta(ctx, o)
	case Slirp4netns:
		return openSlirp(ctx, o)
	}
	return nil, fmt.Errorf("network %s: not one to be opened: %w", o.Mode.Kind, define.ErrInvalid)
}

// Namespace is what steps join. It stays the network's.
func (n *Network) Namespace() *os.File { return n.namespace }

// DNS are the name servers that the namespace reaches, of the host's choice.
// None says that the host's own are reached from there as they are.
func (n *Network) DNS() []netip.Addr { return n.dns }

// Gateway is the address at which the namespace reaches the host; the zero
// address says that it does not.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// Kind names how the network was made, for people: "bridge", "user-mode" and
// so on.
func (n *Network) Kind() string { return n.kind }

// Close removes the network. Processes in its namespace lose it.
func (n *Network) Close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = nil
	return errors.Join(errs...)
}

func (n *Network) onClose(f func() error) { n.closers = append(n.closers, f) }

// openPrivate takes the kernel's way where root is sure that it works: this
// host forwards already, for all families that it has, and no firewall is
// known to be in the way. HostLoopback is for the user-mode stack only.
func openPrivate(o Options) (*Network, error) {
	h := lookAtHost()
	if !o.Rootless && !o.Mode.HostLoopback && forwards("ipv4") && (!h.own6.IsValid() || forwards("ipv6")) && obstacle() == "" {
		if n, err := openBridge(o, h); err == nil {
			return n, nil
		}
	}
	return openUser(o, h)
}

// openUser makes a namespace with a device that leads to a user-mode stack.
func openUser(o Options, h host) (*Network, error) {
	p, err := h.plan()
	if err != nil {
		return nil, err
	}
	d, err := newDevice(p)
	if err != nil {
		return nil, fmt.Errorf("private network: %w", err)
	}
	n := &Network{namespace: d.namespace, gateway: p.gateways[0], kind: "user-mode"}
	n.onClose(d.namespace.Close)
	so := usernet.Options{
		FD: d.fd, Tun: d.tun, MAC: stackMAC, PeerMAC: deviceMAC,
		Gateways: p.gateways, Resolvers: h.resolvers,
		CloseFD: func(fd int) error { return closeLater(fd) },
	}
	for i, g := range p.gateways {
		so.Peers = append(so.Peers, p.peers[i].Addr())
		so.Host = append(so.Host, h.reach(g.Is4(), o.Mode.HostLoopback))
	}
	s, err := usernet.Open(so) // takes the descriptor
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.onClose(s.Close)
	if len(h.resolvers) > 0 {
		n.dns = p.gateways[:1]
	}
	return n, nil
}
