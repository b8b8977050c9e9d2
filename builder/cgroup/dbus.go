package cgroup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// bus is a connection to a D-Bus message bus, with as much of the D-Bus
// Specification (0.43) as calls to systemd need: strings, numbers and object
// paths, no descriptors.
type bus struct {
	conn   net.Conn
	r      *bufio.Reader
	serial uint32
	// ended are the results of systemd's jobs, by the job's path.
	ended map[string]string
}

// maxMessage bounds a message from the bus; the ones that we get have some
// hundred bytes.
const maxMessage = 1 << 20

// openBus connects to the first of a list of addresses that answers, says who
// we are, and asks for a name. All of it, and all calls, must be done by
// deadline.
func openBus(addresses string, deadline time.Time) (*bus, error) {
	var errs []error
	for address := range strings.SplitSeq(addresses, ";") {
		path, err := busPath(address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b := &bus{conn: conn, r: bufio.NewReader(conn), ended: map[string]string{}}
		err = conn.SetDeadline(deadline)
		if err == nil {
			err = b.authenticate()
		}
		if err == nil {
			_, err = b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "", nil)
		}
		if err == nil {
			return b, nil
		}
		conn.Close()
		errs = append(errs, fmt.Errorf("message bus %s: %w", path, err))
	}
	return nil, errors.Join(errs...)
}

// busPath reads a server address (D-Bus Specification, "Server Addresses").
func busPath(address string) (string, error) {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("bus address %q: only unix sockets are supported", address)
	}
	for pair := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil || strings.ContainsRune(value, 0):
			return "", fmt.Errorf("bus address %q: not escaped properly", address)
		case key == "path" && value != "":
			return value, nil
		case key == "abstract" && value != "":
			return "@" + value, nil
		}
	}
	return "", fmt.Errorf("bus address %q: names no socket", address)
}

// authenticate lets the bus look at whose process we are: in a user namespace
// our own idea of the id is another.
func (b *bus) authenticate() error {
	if _, err := io.WriteString(b.conn, "\x00AUTH EXTERNAL\r\nDATA\r\n"); err != nil {
		return err
	}
	for {
		line, err := b.line()
		switch {
		case err != nil:
			return fmt.Errorf("authentication: %w", err)
		case line == "DATA":
		case line == "OK" || strings.HasPrefix(line, "OK "):
			_, err := io.WriteString(b.conn, "BEGIN\r\n")
			return err
		default:
			return fmt.Errorf("authentication is refused: %.100q", line)
		}
	}
}

func (b *bus) line() (string, error) {
	var line []byte
	for len(line) < 512 {
		c, err := b.r.ReadByte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, c)
	}
	return "", errors.New("a line has no end")
}

// call calls a method and returns the body of its answer. Results of jobs that
// come by meanwhile are kept.
func (b *bus) call(to, path, iface, method, signature string, body []byte) (*message, error) {
	b.serial++
	if _, err := b.conn.Write(encodeCall(b.serial, to, path, iface, method, signature, body)); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	want := b.serial
	for {
		m, err := b.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", method, err)
		case m.reply != want:
		case m.kind == kindError:
			text, _ := m.body().str()
			return nil, fmt.Errorf("%s: %s: %s", method, m.errorName, text)
		case m.kind == kindReturn:
			return m, nil
		}
	}
}

// next reads a message.
func (b *bus) next() (*message, error) {
	m, err := readMessage(b.r)
	if err != nil {
		return nil, err
	}
	if m.kind == kindSignal && m.iface == systemdManager && m.member == "JobRemoved" {
		// JobRemoved(u id, o job, s unit, s result)
		d := m.body()
		d.u32()
		job, _ := d.str()
		d.str()
		if result, ok := d.str(); ok {
			b.ended[job] = result
		}
	}
	return m, nil
}

// wait waits until a job of systemd's has ended and returns its result.
func (b *bus) wait(job string) (string, error) {
	for {
		if result, ok := b.ended[job]; ok {
			return result, nil
		}
		if _, err := b.next(); err != nil {
			return "", err
		}
	}
}

// Kinds of messages.
const (
	kindCall   = 1
	kindReturn = 2
	kindError  = 3
	kindSignal = 4
)

// message is what we look at of one.
type message struct {
	kind                           byte
	reply                          uint32
	errorName, iface, member, path string
	order                          binary.ByteOrder
	content                        []byte
}

func (m *message) body() *decoder { return &decoder{b: m.content, order: m.order} }

// readMessage reads one message (D-Bus Specification, "Message Protocol").
func readMessage(r io.Reader) (*message, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	m := &message{kind: head[1], order: binary.LittleEndian}
	switch head[0] {
	case 'l':
	case 'B':
		m.order = binary.BigEndian
	default:
		return nil, errors.New("what the bus sends is no message")
	}
	body, fields := uint64(m.order.Uint32(head[4:])), uint64(m.order.Uint32(head[12:]))
	if body > maxMessage || fields > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is too large", body+fields)
	}
	rest := make([]byte, (fields+7)/8*8+body)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	if err := m.fields(rest[:fields]); err != nil {
		return nil, err
	}
	m.content = rest[(fields+7)/8*8:]
	return m, nil
}

// fields reads the array of (code, variant) of a header, which begins at a
// multiple of 8.
func (m *message) fields(b []byte) error {
	d := &decoder{b: b, order: m.order}
	for d.align(8); d.at < len(d.b); d.align(8) {
		code, _ := d.byte()
		kind, ok := d.signature()
		if !ok {
			break
		}
		var text string
		var number uint32
		switch kind {
		case "s", "o":
			text, ok = d.str()
		case "g":
			text, ok = d.signature()
		case "u":
			number, ok = d.u32()
		default:
			return fmt.Errorf("a message's header has a field of type %.20q", kind)
		}
		if !ok {
			break
		}
		switch code {
		case 1:
			m.path = text
		case 2:
			m.iface = text
		case 3:
			m.member = text
		case 4:
			m.errorName = text
		case 5:
			m.reply = number
		}
	}
	if d.bad {
		return errors.New("a message's header is cut off")
	}
	return nil
}

// decoder reads marshalled values.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	bad   bool
}

func (d *decoder) align(n int) { d.at = (d.at + n - 1) / n * n }

func (d *decoder) take(n int) ([]byte, bool) {
	if d.bad || n < 0 || d.at > len(d.b) || n > len(d.b)-d.at {
		d.bad = true
		return nil, false
	}
	b := d.b[d.at : d.at+n]
	d.at += n
	return b, true
}

func (d *decoder) byte() (byte, bool) {
	b, ok := d.take(1)
	if !ok {
		return 0, false
	}
	return b[0], true
}

func (d *decoder) u32() (uint32, bool) {
	d.align(4)
	b, ok := d.take(4)
	if !ok {
		return 0, false
	}
	return d.order.Uint32(b), true
}

func (d *decoder) str() (string, bool) {
	n, ok := d.u32()
	if !ok || n > maxMessage {
		d.bad = true
		return "", false
	}
	b, ok := d.take(int(n) + 1)
	if !ok {
		return "", false
	}
	return string(b[:n]), true
}

func (d *decoder) signature() (string, bool) {
	n, ok := d.byte()
	if !ok {
		return "", false
	}
	b, ok := d.take(int(n) + 1)
	if !ok {
		return "", false
	}
	return string(b[:n]), true
}

// encoder writes marshalled values, little endian.
type encoder struct{ bytes.Buffer }

func (e *encoder) align(n int) {
	for e.Len()%n != 0 {
		e.WriteByte(0)
	}
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	e.Write(binary.LittleEndian.AppendUint32(nil, v))
}

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.WriteString(s)
	e.WriteByte(0)
}

func (e *encoder) signature(s string) {
	e.WriteByte(byte(len(s)))
	e.WriteString(s)
	e.WriteByte(0)
}

// array writes an array whose elements are aligned to align; add writes them.
func (e *encoder) array(align int, add func()) {
	e.u32(0)
	length := e.Len() - 4
	e.align(align)
	start := e.Len()
	add()
	binary.LittleEndian.PutUint32(e.Bytes()[length:], uint32(e.Len()-start))
}

// encodeCall is a method call.
func encodeCall(serial uint32, to, path, iface, method, signature string, body []byte) []byte {
	e := &encoder{}
	e.Write([]byte{'l', kindCall, 0, 1})
	e.u32(uint32(len(body)))
	e.u32(serial)
	e.array(8, func() {
		for _, f := range []struct {
			code        byte
			kind, value string
		}{{1, "o", path}, {2, "s", iface}, {3, "s", method}, {6, "s", to}, {8, "g", signature}} {
			if f.value == "" {
				continue
			}
			e.align(8)
			e.WriteByte(f.code)
			e.signature(f.kind)
			if f.kind == "g" {
				e.signature(f.value)
			} else {
				e.str(f.value)
			}
		}
	})
	e.align(8)
	e.Write(body)
	return e.Bytes()
}
