package netlink

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNextRefusesParts(t *testing.T) {
	b := &Batch{}
	b.AddAddress(2, netip.MustParsePrefix("10.0.0.1/24"))
	b.SetLink(2, 0)
	var all []byte
	for i, m := range b.messages {
		all = append(all, m.done(uint32(i+1))...)
	}
	h, body, rest, ok := next(all)
	if !ok || h.kind != unix.RTM_NEWADDR || h.sequence != 1 || len(body)+unix.NLMSG_HDRLEN != int(h.length) {
		t.Fatalf("%+v, %v", h, ok)
	}
	if h, _, rest, ok = next(rest); !ok || h.kind != unix.RTM_NEWLINK || len(rest) != 0 {
		t.Fatalf("%+v, %v, %d bytes left", h, ok, len(rest))
	}
	for n := range 60 {
		if h, _, _, ok := next(all[:n]); ok && int(h.length) > n {
			t.Errorf("the first %d bytes were taken for %d", n, h.length)
		}
	}
}

func TestForwardChain(t *testing.T) {
	make := func(family byte, hook, policy uint32, kind string) []byte {
		m := newMessage(0, 0, nfgen(family, 0)...)
		m.text(unix.NFTA_CHAIN_TABLE, "filter")
		m.text(unix.NFTA_CHAIN_NAME, "FORWARD")
		m.nest(chainHook, func() { m.be32(unix.NFTA_HOOK_HOOKNUM, hook) })
		m.be32(chainPolicy, policy)
		m.text(unix.NFTA_CHAIN_TYPE, kind)
		return m.b[unix.NLMSG_HDRLEN:]
	}
	c, ok := forwardChain(make(unix.NFPROTO_IPV4, hookForward, 0, "filter"))
	if want := (Chain{Family: "ip", Table: "filter", Name: "FORWARD", Drops: true}); !ok || c != want {
		t.Errorf("%+v, %v", c, ok)
	}
	if c, ok = forwardChain(make(unix.NFPROTO_INET, hookForward, 1, "filter")); !ok || c.Drops {
		t.Errorf("accepting: %+v, %v", c, ok)
	}
	for name, b := range map[string][]byte{
		"another hook":   make(unix.NFPROTO_IPV4, hookPostrouting, 0, "filter"),
		"another type":   make(unix.NFPROTO_IPV4, hookForward, 0, "nat"),
		"another family": make(unix.NFPROTO_BRIDGE, hookForward, 0, "filter"),
		"nothing":        nil,
	} {
		if _, ok := forwardChain(b); ok {
			t.Errorf("%s: taken for a chain that filters what is forwarded", name)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	b := &Batch{}
	b.AddVeth(Veth{Name: "a"}, Veth{Name: "b"}, 3)
	f.Add(b.messages[0].done(1))
	f.Fuzz(func(t *testing.T, in []byte) {
		size := 0
		for rest := in; ; {
			_, body, more, ok := next(rest)
			if !ok {
				break
			}
			size += len(body)
			forwardChain(body)
			attributes(body, func(_ uint16, v []byte) bool { return !bytes.Equal(v, []byte("stop")) })
			if len(more) >= len(rest) {
				t.Fatal("no progress")
			}
			rest = more
		}
		if size > len(in) {
			t.Errorf("bodies of %d bytes in %d", size, len(in))
		}
	})
}
