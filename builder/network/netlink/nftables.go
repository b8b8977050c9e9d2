package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// From linux/netfilter/nf_tables.h; golang.org/x/sys has no names for these.
const (
	tableOwner      = 0x2 // NFT_TABLE_F_OWNER
	chainHook       = unix.NFTA_CHAIN_HOOK
	chainPolicy     = unix.NFTA_CHAIN_POLICY
	hookForward     = 2 // NF_INET_FORWARD
	hookPostrouting = 4 // NF_INET_POST_ROUTING
	prioritySNAT    = 100
)

// nfgen is struct nfgenmsg.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, 0 /* NFNETLINK_V0 */}, resource)
}

// batchMark begins or ends a transaction.
func batchMark(kind uint16) []byte {
	m := newMessage(kind, 0, nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)...)
	binary.NativeEndian.PutUint16(m.b[6:], unix.NLM_F_REQUEST)
	return m.done(0)
}

func nfMessage(kind uint16, flags uint16, family byte) *message {
	return newMessage(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, nfgen(family, 0)...)
}

// Masquerade makes a table of the given name that this socket owns: what is
// forwarded from the device leaves the host with the host's address (IPv4 and
// IPv6). It needs Linux 5.12.
func (s *Socket) Masquerade(table, device string) error {
	b := &Batch{transaction: true}
	t := nfMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFPROTO_INET)
	t.text(unix.NFTA_TABLE_NAME, table)
	t.be32(unix.NFTA_TABLE_FLAGS, tableOwner)
	b.add(t, "nftables table %s", table)

	c := nfMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFPROTO_INET)
	c.text(unix.NFTA_CHAIN_TABLE, table)
	c.text(unix.NFTA_CHAIN_NAME, "postrouting")
	c.nest(chainHook, func() {
		c.be32(unix.NFTA_HOOK_HOOKNUM, hookPostrouting)
		c.be32(unix.NFTA_HOOK_PRIORITY, prioritySNAT)
	})
	c.text(unix.NFTA_CHAIN_TYPE, "nat")
	b.add(c, "nftables chain postrouting")

	r := nfMessage(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.NFPROTO_INET)
	r.text(unix.NFTA_RULE_TABLE, table)
	r.text(unix.NFTA_RULE_CHAIN, "postrouting")
	r.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
		r.expression("meta", func() {
			r.be32(unix.NFTA_META_DREG, unix.NFT_REG_1)
			r.be32(unix.NFTA_META_KEY, unix.NFT_META_IIFNAME)
		})
		r.expression("cmp", func() {
			var name [unix.IFNAMSIZ]byte
			copy(name[:], device)
			r.be32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
			r.be32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
			r.nest(unix.NFTA_CMP_DATA, func() { r.attr(unix.NFTA_DATA_VALUE, name[:]) })
		})
		r.expression("masq", func() {})
	})
	b.add(r, "nftables rule")
	return s.Do(b)
}

func (m *message) expression(name string, data func()) {
	m.nest(unix.NFTA_LIST_ELEM, func() {
		m.text(unix.NFTA_EXPR_NAME, name)
		m.nest(unix.NFTA_EXPR_DATA, data)
	})
}

// Chain is a chain that the kernel asks before it forwards a packet.
type Chain struct {
	Family      string // "ip", "ip6" or "inet"
	Table, Name string
	Drops       bool // its policy: what no rule accepts is dropped
}

// ForwardChains returns the chains of all tables that filter forwarded
// packets. Those of iptables-legacy are not among them.
func (s *Socket) ForwardChains() ([]Chain, error) {
	var out []Chain
	m := nfMessage(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, unix.AF_UNSPEC)
	err := s.dump(m, func(_ uint16, body []byte) {
		if c, ok := forwardChain(body); ok {
			out = append(out, c)
		}
	})
	return out, err
}

// forwardChain reads one answer.
func forwardChain(body []byte) (c Chain, ok bool) {
	if len(body) < 4 {
		return c, false
	}
	switch body[0] {
	case unix.NFPROTO_IPV4:
		c.Family = "ip"
	case unix.NFPROTO_IPV6:
		c.Family = "ip6"
	case unix.NFPROTO_INET:
		c.Family = "inet"
	default:
		return c, false
	}
	forward, filter := false, false
	attributes(body[4:], func(kind uint16, value []byte) bool {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = cString(value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = cString(value)
		case unix.NFTA_CHAIN_TYPE:
			filter = cString(value) == "filter"
		case chainPolicy:
			c.Drops = len(value) == 4 && binary.BigEndian.Uint32(value) == 0 // NF_DROP
		case chainHook:
			attributes(value, func(kind uint16, value []byte) bool {
				if kind == unix.NFTA_HOOK_HOOKNUM && len(value) == 4 {
					forward = binary.BigEndian.Uint32(value) == hookForward
				}
				return true
			})
		}
		return true
	})
	return c, forward && filter
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Tables returns the names of the tables of all families.
func (s *Socket) Tables() ([]string, error) {
	var out []string
	m := nfMessage(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.AF_UNSPEC)
	err := s.dump(m, func(_ uint16, body []byte) {
		if len(body) < 4 {
			return
		}
		attributes(body[4:], func(kind uint16, value []byte) bool {
			if kind == unix.NFTA_TABLE_NAME {
				out = append(out, cString(value))
			}
			return true
		})
	})
	return out, err
}

// DropForwarded makes a table, owned by the socket, whose policy is to drop
// what is forwarded. It is for tests of what happens beside such a one.
func (s *Socket) DropForwarded(table string) error {
	b := &Batch{transaction: true}
	t := nfMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFPROTO_INET)
	t.text(unix.NFTA_TABLE_NAME, table)
	t.be32(unix.NFTA_TABLE_FLAGS, tableOwner)
	b.add(t, "nftables table %s", table)
	c := nfMessage(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFPROTO_INET)
	c.text(unix.NFTA_CHAIN_TABLE, table)
	c.text(unix.NFTA_CHAIN_NAME, "forward")
	c.nest(chainHook, func() {
		c.be32(unix.NFTA_HOOK_HOOKNUM, hookForward)
		c.be32(unix.NFTA_HOOK_PRIORITY, 0)
	})
	c.be32(chainPolicy, 0 /* NF_DROP */)
	c.text(unix.NFTA_CHAIN_TYPE, "filter")
	b.add(c, "nftables chain forward")
	return s.Do(b)
}
