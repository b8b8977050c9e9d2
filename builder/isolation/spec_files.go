package isolation

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/stratabuild/strata/define"
)

// files fills s.Files. A file below a volume of the user's is left out: the
// volume is what the user wants to see there.
func (s *Spec) files(o Options) error {
	s.Files = map[string][]byte{}
	if !o.NoHosts {
		hosts, err := hostsFile(o)
		if err != nil {
			return err
		}
		s.Files["/etc/hosts"] = []byte(hosts)
	} else if len(o.Hosts) > 0 {
		return fmt.Errorf("host entry %q: the step is to keep the image's /etc/hosts: %w", o.Hosts[0], define.ErrInvalid)
	}
	if !o.NoHostname {
		s.Files["/etc/hostname"] = []byte(o.Hostname + "\n")
	}
	if err := s.resolvConf(o); err != nil {
		return err
	}
	for _, m := range s.Mounts {
		for file := range s.Files {
			if file == m.Destination || strings.HasPrefix(file, m.Destination+"/") {
				delete(s.Files, file)
			}
		}
	}
	return nil
}

// randomHostname is 12 hex digits, as a container's short id looks.
func randomHostname() string {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

// checkHostname accepts what sethostname(2) and /etc/hosts can hold.
func checkHostname(name string) error {
	if len(name) > 64 {
		return fmt.Errorf("hostname %q: longer than the kernel's 64 bytes: %w", name, define.ErrInvalid)
	}
	if !isHostname(name) {
		return fmt.Errorf("hostname %q: want letters, digits, dots, hyphens and underscores: %w", name, define.ErrInvalid)
	}
	return nil
}

func isHostname(name string) bool {
	if name == "" || len(name) > 253 || name[0] == '-' || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// hostsFile writes /etc/hosts: the user's entries first, since the first
// match of a name wins.
func hostsFile(o Options) (string, error) {
	var b strings.Builder
	gateway := o.HostGateway
	if !gateway.IsValid() && (o.Network == "" || o.Network == NetworkHost) {
		// The host is where the step is, and all that listens is reached so.
		gateway = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for _, h := range o.Hosts {
		names, addr, err := hostEntry(h, gateway)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, strings.Join(names, " "))
	}
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	fmt.Fprintf(&b, "127.0.1.1\t%s\n", o.Hostname)
	return b.String(), nil
}

// hostEntry reads "name:ip", "name=ip" and "a;b:ip"; gateway is the address
// of host-gateway.
func hostEntry(h string, gateway netip.Addr) ([]string, netip.Addr, error) {
	bad := func(why string) ([]string, netip.Addr, error) {
		return nil, netip.Addr{}, fmt.Errorf("host entry %q: %s: want name:ip, such as db:10.0.0.7: %w", h, why, define.ErrInvalid)
	}
	at := strings.IndexAny(h, ":=")
	if at < 0 {
		return bad("no address")
	}
	text := h[at+1:]
	if text == "host-gateway" {
		if !gateway.IsValid() {
			return nil, netip.Addr{}, fmt.Errorf("host entry %q: the step's network has no gateway to the host; "+
				"use --network private or host, or give an address: %w", h, define.ErrUnsupported)
		}
		text = gateway.String()
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("bracket not closed")
		}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return bad("not an IP address")
	}
	names := strings.Split(h[:at], ";")
	for _, n := range names {
		if !isHostname(n) {
			return bad("not a host name")
		}
	}
	return names, addr, nil
}

// resolvConf adds the step's /etc/resolv.conf. DNS "none" leaves it the
// root's own.
func (s *Spec) resolvConf(o Options) error {
	if slices.Equal(o.DNS, []string{"none"}) {
		if len(o.DNSSearch) > 0 || len(o.DNSOptions) > 0 {
			return fmt.Errorf("DNS server none: the step is to keep the image's /etc/resolv.conf, without search domains and options of yours: %w", define.ErrInvalid)
		}
		return nil
	}
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("resolver configuration of the host: %w", err)
	}
	resolv, err := resolvConf(string(host), o)
	if err != nil {
		return err
	}
	s.Files["/etc/resolv.conf"] = []byte(resolv)
	return nil
}

// resolvConf makes the step's /etc/resolv.conf from the host's. Name servers on the host's loopback device are left
// out unless the step shares the network.
func resolvConf(host string, o Options) (string, error) {
	servers, search, options, err := resolvOptions(o)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(host) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' || f[0][0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(servers) > 0 || len(f) < 2 {
				continue
			}
			addr, err := netip.ParseAddr(f[1])
			if err != nil || o.Network != NetworkHost && addr.IsLoopback() {
				continue
			}
		case "search", "domain":
			if search != nil {
				continue
			}
		case "options":
			if options != nil {
				continue
			}
		}
		b.WriteString(strings.Join(f, " ") + "\n")
	}
	if len(search) > 0 {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.String(), nil
}

// resolvOptions checks the user's own values. A search list of "." means
// none: the host's is not used and nothing is written.
func resolvOptions(o Options) (servers, search, options []string, err error) {
	for _, d := range o.DNS {
		addr, err := netip.ParseAddr(d)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("DNS server %q: want an IP address, or none alone: %w", d, define.ErrInvalid)
		}
		servers = append(servers, addr.String())
	}
	if len(o.DNSSearch) > 0 {
		search = []string{}
		for _, d := range o.DNSSearch {
			if d == "." {
				continue
			}
			if !isHostname(d) {
				return nil, nil, nil, fmt.Errorf("DNS search domain %q: want a domain, or \".\" for none: %w", d, define.ErrInvalid)
			}
			search = append(search, d)
		}
	}
	if len(o.DNSOptions) > 0 {
		options = []string{}
		for _, d := range o.DNSOptions {
			if d == "" || strings.ContainsAny(d, " \t\r\n\x00") {
				return nil, nil, nil, fmt.Errorf("DNS option %q: want one of resolv.conf(5), such as ndots:2: %w", d, define.ErrInvalid)
			}
			options = append(options, d)
		}
	}
	return servers, search, options, nil
}
