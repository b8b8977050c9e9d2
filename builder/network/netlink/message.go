package netlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// message is one netlink message under construction: header, fixed part,
// attributes.
type message struct{ b []byte }

func newMessage(kind uint16, flags uint16, fixed ...byte) *message {
	m := &message{b: make([]byte, unix.NLMSG_HDRLEN, 256)}
	binary.NativeEndian.PutUint16(m.b[4:], kind)
	binary.NativeEndian.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m.b = append(m.b, fixed...)
	m.pad()
	return m
}

func (m *message) pad() {
	for len(m.b)%unix.NLMSG_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// attr adds an attribute; all integers in it are the caller's to order.
func (m *message) attr(kind uint16, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	m.pad()
}

func (m *message) u8(kind uint16, v uint8)    { m.attr(kind, []byte{v}) }
func (m *message) u32(kind uint16, v uint32)  { m.attr(kind, binary.NativeEndian.AppendUint32(nil, v)) }
func (m *message) be32(kind uint16, v uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

// text adds a string with the zero byte that the kernel's strings end in.
func (m *message) text(kind uint16, s string) { m.attr(kind, append([]byte(s), 0)) }

// nest adds an attribute that holds those that f adds.
func (m *message) nest(kind uint16, f func()) {
	at := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	f()
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

// unacknowledged asks for an answer to a failure only.
func (m *message) unacknowledged() {
	binary.NativeEndian.PutUint16(m.b[6:], binary.NativeEndian.Uint16(m.b[6:])&^unix.NLM_F_ACK)
}

// done writes length and sequence number.
func (m *message) done(sequence uint32) []byte {
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	binary.NativeEndian.PutUint32(m.b[8:], sequence)
	return m.b
}

// header is what comes before each message.
type header struct {
	length   uint32
	kind     uint16
	sequence uint32
}

// next splits the first message from b. ok is false when b holds no whole
// message.
func next(b []byte) (h header, body, rest []byte, ok bool) {
	if len(b) < unix.NLMSG_HDRLEN {
		return h, nil, nil, false
	}
	h.length = binary.NativeEndian.Uint32(b)
	h.kind = binary.NativeEndian.Uint16(b[4:])
	h.sequence = binary.NativeEndian.Uint32(b[8:])
	if h.length < unix.NLMSG_HDRLEN || uint64(h.length) > uint64(len(b)) {
		return h, nil, nil, false
	}
	body = b[unix.NLMSG_HDRLEN:h.length]
	padded := (uint64(h.length) + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
	return h, body, b[min(padded, uint64(len(b))):], true
}

// attributes calls f for each attribute in b, until f returns false or b ends
// or is malformed.
func attributes(b []byte, f func(kind uint16, value []byte) bool) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if !f(kind, b[4:n]) {
			return
		}
		b = b[min((n+3)&^3, len(b)):]
	}
}
