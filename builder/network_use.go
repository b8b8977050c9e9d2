package builder

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/network"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/define"
)

// networks are those that the engine's steps share, by mode: made at the first
// step that wants one, and kept until the engine is closed.
type networks struct {
	mu      sync.Mutex
	opened  map[isolation.NetworkMode]*openedNetwork
	closing sync.WaitGroup
	errs    []error // of those that were closed
}

// openedNetwork is the outcome of opening one; without a network and an error,
// steps use the host's.
type openedNetwork struct {
	once sync.Once
	n    *network.Network
	err  error
}

func (l *networks) get(mode isolation.NetworkMode) *openedNetwork {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened == nil {
		l.opened = map[isolation.NetworkMode]*openedNetwork{}
	}
	if l.opened[mode] == nil {
		l.opened[mode] = &openedNetwork{}
	}
	return l.opened[mode]
}

// release begins to take all networks away. The kernel waits for some
// milliseconds when a device goes, which cost nothing beside other work.
func (l *networks) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.opened {
		l.closing.Go(func() {
			o.once.Do(func() {}) // waits for one that is being opened
			if o.n == nil {
				return
			}
			err := o.n.Close()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.errs = append(l.errs, err)
		})
	}
	l.opened = nil
}

func (l *networks) close() error {
	l.release()
	l.closing.Wait()
	return errors.Join(l.errs...)
}

// ReleaseNetworks begins to take away the networks of steps, once the last
// step has ended; Close waits for it. A step that comes after all gets a new
// one.
func (e *Engine) ReleaseNetworks() { e.networks.release() }

// joinNetwork puts the network that o.Network names in the form of --network
// into o.
func (e *Engine) joinNetwork(ctx context.Context, o *isolation.Options) error {
	if o.Network == "" {
		o.Network = DefaultNetwork
	}
	if o.Network == isolation.NetworkHost || o.Network == isolation.NetworkNone {
		return nil
	}
	opened := e.networks.get(o.Network)
	opened.once.Do(func() { opened.n, opened.err = e.openNetwork(ctx, o.Network) })
	if opened.err != nil {
		return opened.err
	}
	n := opened.n
	if n == nil {
		o.Network = isolation.NetworkHost
		return nil
	}
	o.Network, o.NetworkNamespace, o.HostGateway = isolation.NetworkJoined, n.Namespace(), n.Gateway()
	if len(o.DNS) == 0 {
		for _, a := range n.DNS() {
			o.DNS = append(o.DNS, a.String())
		}
	}
	return nil
}

// openNetwork makes the network of a mode. Where the mode is nobody's wish and
// cannot be had, there is none, and a note says why.
func (e *Engine) openNetwork(ctx context.Context, mode isolation.NetworkMode) (*network.Network, error) {
	m, err := network.Parse(string(mode))
	if err != nil {
		return nil, err
	}
	note := func(format string, args ...any) {
		define.Emit(e.opts.Listener, define.Event{Kind: define.EventNote, Text: fmt.Sprintf(format, args...)})
	}
	proxy := loopbackProxy(os.Getenv)
	if m.Kind == network.Default && proxy != "" {
		note("steps use the host's network: the proxy of %s is on the loopback device, where a private network does not reach it", proxy)
		return nil, nil
	}
	n, err := network.Open(ctx, network.Options{Mode: m, Rootless: e.opts.Rootless, Listener: e.opts.Listener, HostProc: userns.HostProc()})
	switch {
	case err != nil && m.Kind == network.Default && ctx.Err() == nil:
		note("steps use the host's network: %v", err)
		return nil, nil
	case err == nil && proxy != "" && m.Kind != network.Path && m.Kind != network.Process:
		note("the proxy of %s is on the host's loopback device, which network %s does not reach; use --network host", proxy, mode)
	}
	return n, err
}

// loopbackProxy returns the name of the first proxy variable whose proxy is
// on the loopback device; "" is none.
func loopbackProxy(getenv func(string) string) string {
	for _, name := range ProxyVariables {
		value := getenv(name)
		if value == "" || strings.EqualFold(name, "no_proxy") {
			continue
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		u, err := url.Parse(value)
		if err != nil {
			continue
		}
		host := u.Hostname()
		a, err := netip.ParseAddr(host)
		if err == nil && (a.Unmap().IsLoopback() || a.IsUnspecified()) || strings.EqualFold(host, "localhost") ||
			strings.HasSuffix(strings.ToLower(host), ".localhost") {
			return name
		}
	}
	return ""
}

// DefaultNetwork is the network of steps that ask for none: the value of
// --network.
const DefaultNetwork = isolation.NetworkHost
