package transport

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/stratabuild/strata/define"
)

// guard looks at every URL that a registry makes containers/image visit:
// redirects, upload locations, token servers, URLs of foreign layers. It
// stands where the proxy for a request is chosen, which comes before any
// connection.
type guard struct {
	insecure bool
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
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}
