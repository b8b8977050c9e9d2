package transport

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"sync"

	"github.com/stratabuild/strata/define"
)

// guard looks at every URL that a registry makes containers/image visit:
// redirects, upload locations, token servers, URLs of foreign layers. It
// stands where the proxy for a request is chosen, which comes before any
// connection.
type guard struct {
	mu       sync.Mutex
	insecure bool // plain HTTP is allowed
	pinged   map[string]bool
}

// proxy refuses URLs that no honest registry sends one to, and chooses the
// proxy of the environment for the others.
func (g *guard) proxy(u *url.URL) (*url.URL, error) {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("refusing to follow the registry to %s: not an HTTP address: %w", u.Redacted(), define.ErrInvalid)
	}
	// Cloud machines offer their credentials on link-local addresses to
	// whoever asks from inside (169.254.169.254, fe80::, CVE-2026-33540).
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.Unmap().IsLinkLocalUnicast() {
		return nil, fmt.Errorf("refusing to follow the registry to %s: a link-local address: %w", u.Host, define.ErrInvalid)
	}
	if !g.allows(u) {
		return nil, fmt.Errorf("refusing to follow the registry from HTTPS to %s, where tokens could be read on the way; if that is wanted, pass --tls-verify=false: %w", u.Redacted(), define.ErrInvalid)
	}
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

// allows says whether the scheme is good enough. Which registries may be
// asked by plain HTTP, containers/image finds out itself, from the options and
// registries.conf: it pings by HTTPS, and by HTTP after that when it may.
func (g *guard) allows(u *url.URL) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u.Path == "/v2/" {
		if u.Scheme == "https" {
			if g.pinged == nil {
				g.pinged = map[string]bool{}
			}
			g.pinged[u.Host] = true
		} else if g.pinged[u.Host] {
			g.insecure = true
		}
	}
	return u.Scheme == "https" || g.insecure
}
