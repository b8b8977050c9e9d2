package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
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
	chroot  sync.Once
}

// openedNetwork is the outcome of opening one; without a network and an error,
// steps use the host's.
type openedNetwork struct {
	once sync.Once
	n    *network.Network
	err  error
	// note is said to the first step that joins: the network may have been
	// begun for one that does not. So is once that a proxy is not reached.
	note            string
	said, unreached sync.Once
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

// release begins to take all networks away.
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

// DefaultNetwork is the network of steps that ask for none: the value of
// --network. It is private where that can be had, and the host's elsewhere.
const DefaultNetwork isolation.NetworkMode = "default"

// beginNetwork begins to make the network of a step beside other work, such as
// the choice of its isolation.
func (e *Engine) beginNetwork(ctx context.Context, c *Confinement) {
	mode := cmp.Or(c.Network, DefaultNetwork)
	if mode == isolation.NetworkHost || mode == isolation.NetworkNone || mode == DefaultNetwork && e.opts.Isolation == chrootIsolation {
		return
	}
	opened := e.networks.get(mode) // release knows of it from here on
	go e.openOnce(ctx, opened, mode, c.HTTPProxy)
}

func (e *Engine) openOnce(ctx context.Context, opened *openedNetwork, mode isolation.NetworkMode, proxies bool) {
	opened.once.Do(func() { opened.n, opened.note, opened.err = e.openNetwork(ctx, mode, proxies) })
}

// chrootIsolation is the name of the isolation without namespaces.
const chrootIsolation = "chroot"

// joinNetwork puts the network that o.Network names in the form of --network
// into o. proxies says that the step gets this process's proxy variables.
func (e *Engine) joinNetwork(ctx context.Context, driver string, o *isolation.Options, proxies bool) error {
	o.Network = cmp.Or(o.Network, DefaultNetwork)
	if o.Network == isolation.NetworkHost || o.Network == isolation.NetworkNone {
		return nil
	}
	if o.Network == DefaultNetwork && driver == chrootIsolation {
		e.networks.chroot.Do(func() {
			remedy := ""
			// Not for want of another, nor where that cannot be had.
			if e.opts.Isolation == chrootIsolation && userns.MayMakeNamespaces() {
				remedy = "; --network private gives them one of their own"
			}
			e.note("steps use the host's network, as is usual with chroot isolation%s", remedy)
		})
		o.Network = isolation.NetworkHost
		return nil
	}
	mode := o.Network
	opened := e.networks.get(mode)
	e.openOnce(ctx, opened, mode, proxies)
	if opened.err != nil {
		return opened.err
	}
	if opened.note != "" {
		opened.said.Do(func() { e.note("%s", opened.note) })
	}
	n := opened.n
	if n == nil {
		o.Network = isolation.NetworkHost
		return nil
	}
	if name := e.unreached(o.Env, proxies); name != "" {
		opened.unreached.Do(func() {
			e.note("%s of a step names a proxy on the loopback device, and steps do not reach the host's; use --network host", name)
		})
	}
	o.Network, o.NetworkNamespace, o.HostGateway = isolation.NetworkJoined, n.Namespace(), n.Gateway()
	if len(o.DNS) == 0 {
		for _, a := range n.DNS() {
			o.DNS = append(o.DNS, a.String())
		}
	}
	return nil
}

func (e *Engine) note(format string, args ...any) {
	define.Emit(e.opts.Listener, define.Event{Kind: define.EventNote, Text: fmt.Sprintf(format, args...)})
}

// openNetwork makes the network of a mode. Where the mode is nobody's wish and
// cannot be had, there is none, and the note says why. Proxies of this process's
// that are on the loopback device are reached from it, when steps are told of
// them.
func (e *Engine) openNetwork(ctx context.Context, mode isolation.NetworkMode, proxies bool) (n *network.Network, note string, err error) {
	m, err := network.Parse(string(mode))
	if err != nil {
		return nil, "", err
	}
	o := network.Options{Mode: m, Rootless: e.opts.Rootless, Listener: e.opts.Listener, HostProc: userns.HostProc()}
	var name string
	if proxies && m.Kind != network.Path && m.Kind != network.Process {
		name, o.Forward = loopbackProxies(os.Getenv)
	}
	n, err = network.Open(ctx, o)
	switch {
	case err != nil && m.Kind == network.Default && ctx.Err() == nil:
		return nil, fmt.Sprintf("steps use the host's network, because one of their own cannot be had: %v (--network private makes this an error)", err), nil
	case err == nil && len(o.Forward) > 0:
		note = fmt.Sprintf("the proxy of %s is on the host's loopback device: steps reach %s there and nothing else; --http-proxy=false keeps them from it", name, addresses(o.Forward))
	}
	return n, note, err
}

func addresses(list []netip.AddrPort) string {
	var names []string
	for _, a := range list {
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}

// unreached returns the name of the first proxy variable of a step's
// environment whose proxy is on the loopback device and is not forwarded.
func (e *Engine) unreached(env []string, proxies bool) string {
	name, list := loopbackProxies(func(name string) string {
		for _, kv := range env {
			if value, ok := strings.CutPrefix(kv, name+"="); ok {
				if proxies && value == os.Getenv(name) {
					return "" // this process's, which was seen to
				}
				return value
			}
		}
		return ""
	})
	if len(list) == 0 {
		return ""
	}
	return name
}

// loopbackProxies returns the addresses of proxies on the loopback device that
// variables name, and the first such variable.
func loopbackProxies(getenv func(string) string) (first string, list []netip.AddrPort) {
	for _, name := range ProxyVariables {
		value := getenv(name)
		if value == "" || strings.EqualFold(name, "no_proxy") {
			continue
		}
		for _, a := range loopbackProxy(value) {
			if first == "" {
				first = name
			}
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return first, list
}

// loopbackProxy returns the addresses at which a client looks for a proxy, if
// they are of the loopback device.
func loopbackProxy(value string) []netip.AddrPort {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil
	}
	number := u.Port()
	if number == "" {
		number = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	port, err := strconv.ParseUint(cmp.Or(number, "1080"), 10, 16) // SOCKS (RFC 1928)
	if err != nil || port == 0 {
		return nil
	}
	host := strings.ToLower(u.Hostname())
	var hosts []netip.Addr
	a, err := netip.ParseAddr(host)
	switch a = a.Unmap(); {
	case host == "localhost", strings.HasSuffix(host, ".localhost"): // RFC 6761 section 6.3
		hosts = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	case err != nil:
		return nil
	case a.IsLoopback():
		hosts = []netip.Addr{a}
	case a == netip.IPv4Unspecified(): // to connect(2), the loopback device
		hosts = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	case a == netip.IPv6Unspecified():
		hosts = []netip.Addr{netip.IPv6Loopback()}
	}
	var out []netip.AddrPort
	for _, h := range hosts {
		out = append(out, netip.AddrPortFrom(h, uint16(port)))
	}
	return out
}
