package cgroup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answer is a message that a fake systemd sends: a return, an error or a
// signal, in the byte order of its choice.
func answer(order binary.AppendByteOrder, kind byte, serial, reply uint32, to, errorName, signature string, body []byte) []byte {
	e := []byte{'l', kind, 0, 1}
	if order == binary.AppendByteOrder(binary.BigEndian) {
		e[0] = 'B'
	}
	e = order.AppendUint32(e, uint32(len(body)))
	e = order.AppendUint32(e, serial)
	var fields []byte
	add := func(code byte, kind string, value []byte) {
		for len(fields)%8 != 0 {
			fields = append(fields, 0)
		}
		fields = append(append(fields, code, 1), kind+"\x00"...)
		for kind != "g" && len(fields)%4 != 0 {
			fields = append(fields, 0)
		}
		fields = append(fields, value...)
	}
	text := func(s string) []byte { return append(order.AppendUint32(nil, uint32(len(s))), s+"\x00"...) }
	if kind == kindSignal {
		add(1, "o", text("/org/freedesktop/systemd1"))
		add(2, "s", text(systemdManager))
		add(3, "s", text("JobRemoved"))
	} else {
		add(5, "u", order.AppendUint32(nil, reply))
	}
	if errorName != "" {
		add(4, "s", text(errorName))
	}
	if to != "" {
		add(6, "s", text(to))
	}
	if signature != "" {
		add(8, "g", append([]byte{byte(len(signature))}, signature+"\x00"...))
	}
	e = order.AppendUint32(e, uint32(len(fields)))
	e = append(e, fields...)
	for len(e)%8 != 0 {
		e = append(e, 0)
	}
	return append(e, body...)
}

func texts(order binary.AppendByteOrder, list ...string) (b []byte) {
	for _, s := range list {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b = append(order.AppendUint32(b, uint32(len(s))), s+"\x00"...)
	}
	return b
}

const job = "/org/freedesktop/systemd1/job/7"

// removed is JobRemoved(u, o, s, s).
func removed(order binary.AppendByteOrder, result string) []byte {
	return append(order.AppendUint32(nil, 7), texts(order, job, "x.scope", result)...)
}

// fakeBus listens and lets serve answer; it returns the address.
func fakeBus(t *testing.T, serve func(r *bufio.Reader, w io.Writer)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus") // a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(bufio.NewReader(c), c)
			c.Close()
		}
	}()
	return "unix:guid=00;unix:path=" + filepath.Join(dir, "s") + ",guid=0123"
}

// welcome does what a bus does before the first call.
func welcome(r *bufio.Reader, w io.Writer) {
	for range 2 {
		r.ReadString('\n')
	}
	io.WriteString(w, "DATA\r\nOK 0123456789abcdef\r\n")
	r.ReadString('\n')
}

func TestStartScope(t *testing.T) {
	t.Parallel()
	l, b := binary.AppendByteOrder(binary.LittleEndian), binary.AppendByteOrder(binary.BigEndian)
	for _, c := range []struct {
		name  string
		order binary.AppendByteOrder
		reply func(w io.Writer, serial uint32)
		want  string // in the error; "" is none
	}{
		{"done", l, func(w io.Writer, n uint32) {
			w.Write(answer(l, kindReturn, 9, n, "", "", "o", texts(l, job)))
			w.Write(answer(l, kindSignal, 10, 0, "", "", "uoss", removed(l, "done")))
		}, ""},
		{"the signal comes first, big endian", b, func(w io.Writer, n uint32) {
			w.Write(answer(b, kindSignal, 10, 0, "", "", "uoss", removed(b, "done")))
			w.Write(answer(b, kindReturn, 9, n, ":1.5", "", "o", texts(b, job)))
		}, ""},
		{"failed", l, func(w io.Writer, n uint32) {
			w.Write(answer(l, kindReturn, 9, n, "", "", "o", texts(l, job)))
			w.Write(answer(l, kindSignal, 10, 0, "", "", "uoss", removed(l, "failed")))
		}, "was not started: failed"},
		{"refused", l, func(w io.Writer, n uint32) {
			w.Write(answer(l, kindError, 9, n, "", "org.freedesktop.DBus.Error.AccessDenied", "s", texts(l, "no\nway")))
		}, "AccessDenied: no"},
		{"silence", l, func(io.Writer, uint32) {}, "EOF"},
		{"a message without end", l, func(w io.Writer, _ uint32) {
			w.Write([]byte{'l', kindReturn, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0})
		}, "too large"},
		{"garbage", l, func(w io.Writer, _ uint32) { io.WriteString(w, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "no message"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			address := fakeBus(t, func(r *bufio.Reader, w io.Writer) {
				welcome(r, w)
				for n := uint32(1); ; n++ {
					head := make([]byte, 16)
					if _, err := io.ReadFull(r, head); err != nil {
						return
					}
					size := (binary.LittleEndian.Uint32(head[12:])+7)/8*8 + binary.LittleEndian.Uint32(head[4:])
					rest := make([]byte, size)
					if _, err := io.ReadFull(r, rest); err != nil {
						return
					}
					if !bytes.Contains(rest, []byte("StartTransientUnit")) {
						w.Write(answer(c.order, kindReturn, n, binary.LittleEndian.Uint32(head[8:]), "", "", "", nil))
						continue
					}
					if !bytes.Contains(rest, []byte("build.slice")) || !bytes.Contains(rest, []byte("Delegate")) {
						t.Errorf("the call lacks something: %q", rest)
					}
					c.reply(w, binary.LittleEndian.Uint32(head[8:]))
					return
				}
			})
			bus, err := openBus(address, time.Now().Add(5*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			defer bus.conn.Close()
			err = bus.startScope("x.scope", "build.slice")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenBusRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ says, want string }{
		"no rights": {"REJECTED EXTERNAL\r\n", "REJECTED"},
		"no end":    {strings.Repeat("x", 1000), "no end"},
	} {
		address := fakeBus(t, func(r *bufio.Reader, w io.Writer) {
			r.ReadString('\n')
			io.WriteString(w, c.says)
		})
		if _, err := openBus(address, time.Now().Add(5*time.Second)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := openBus("unix:path=/no/such/socket", time.Now().Add(time.Second)); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	// A bus that says nothing holds nobody up.
	address := fakeBus(t, func(r *bufio.Reader, _ io.Writer) { io.Copy(io.Discard, r) })
	start := time.Now()
	if _, err := openBus(address, start.Add(100*time.Millisecond)); err == nil || time.Since(start) > 10*time.Second {
		t.Error(err)
	}
}

func TestBusAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"unix:path=/run/user/1/bus": "/run/user/1/bus", "unix:abstract=/tmp/x,guid=1": "@/tmp/x", "unix:path=/a%20b,guid=0": "/a b",
		"tcp:host=x": "", "unix:guid=1": "", "unix:path=%zz": "", "": "", "unix:path=a%00b": "",
	} {
		if got, err := busPath(in); got != want || (err == nil) == (want == "") {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
	env := func(vars ...string) func(string) string {
		return func(name string) string {
			for _, v := range vars {
				if k, value, _ := strings.Cut(v, "="); k == name {
					return value
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		env  func(string) string
		want string
	}{
		{env("DBUS_SESSION_BUS_ADDRESS=unix:abstract=x"), "unix:abstract=x"},
		{env("XDG_RUNTIME_DIR=/nowhere/a b"), "unix:path=/nowhere/a%20b/bus"},
		{env(), "unix:path=/run/user/54399/bus"},
	} {
		if got := busAddress(c.env, 54399); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
	file := filepath.Join(t.TempDir(), "map")
	for text, want := range map[string]int{"         0       1000          1\n         1     100000      65536\n": 1000, "0 0 4294967295\n": 0, "": 0, "5 6 7\n": 0} {
		put(t, file, text)
		if got := outerID(file); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestDaemon has Debian's dbus-daemon, which checks every message, carry the
// call to a systemd of ours.
func TestDaemon(t *testing.T) {
	t.Parallel()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("dbus-daemon is not installed")
	}
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := filepath.Join(dir, "conf")
	put(t, conf, `<busconfig><type>session</type><listen>unix:path=`+dir+`/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`)
	cmd := exec.CommandContext(t.Context(), daemon, "--config-file="+conf, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	systemd, err := openBus(strings.TrimSpace(address), deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.conn.Close()
	e := &encoder{}
	e.str("org.freedesktop.systemd1")
	e.u32(0)
	if _, err := systemd.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		for {
			head := make([]byte, 16)
			if _, err := io.ReadFull(systemd.r, head); err != nil {
				return
			}
			m, err := readMessage(io.MultiReader(bytes.NewReader(head), systemd.r))
			if err != nil || m.kind != kindCall {
				continue
			}
			l := binary.AppendByteOrder(binary.LittleEndian)
			d := m.body()
			unit, _ := d.str()
			mode, _ := d.str()
			asked <- unit + " " + mode + " " + m.member
			systemd.conn.Write(answer(l, kindReturn, 100, binary.LittleEndian.Uint32(head[8:]), ":1.1", "", "o", texts(l, job)))
			systemd.conn.Write(answer(l, kindSignal, 101, 0, "", "", "uoss", removed(l, "done")))
		}
	}()
	b, err := openBus(strings.TrimSpace(address), deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer b.conn.Close()
	if err := b.startScope("strata-step-1.scope", "a.slice"); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != "strata-step-1.scope fail StartTransientUnit" {
		t.Error(got)
	}
	if err := b.startScope("x.scope", "a/b"); err == nil {
		t.Error("a slice with a slash")
	}
}

func TestManager(t *testing.T) {
	t.Parallel()
	if err := (Limits{Manager: "systemd"}).Check(); err != nil || !(Limits{Manager: "systemd"}).IsZero() {
		t.Errorf("systemd: %v", err)
	}
	if err := (Limits{Manager: "openrc", PIDs: 1}).Check(); err == nil {
		t.Error("an unknown manager")
	}
}

func FuzzReadMessage(f *testing.F) {
	l := binary.AppendByteOrder(binary.LittleEndian)
	f.Add(answer(l, kindReturn, 9, 1, ":1.1", "", "o", texts(l, job)))
	f.Add(answer(l, kindSignal, 9, 0, "", "", "uoss", removed(l, "done")))
	f.Add(encodeCall(1, "a.b", "/", "c.d", "E", "s", []byte{1, 0, 0, 0, 'x', 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := readMessage(bytes.NewReader(b)); err == nil {
			d := m.body()
			d.u32()
			d.str()
			if d.at > len(d.b)+8 {
				t.Error(fmt.Sprint(d.at))
			}
		}
	})
}
