package chroot

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r    report
		code int // 0: no ExitError
		ok   bool
	}{
		{report{}, 0, true},
		{report{Status: 3 << 8}, 3, false},
		{report{Status: 9}, 137, false},
		{report{Error: "x", Errno: syscall.ENOENT, Program: "x"}, 127, false},
		{report{Error: "x", Errno: syscall.EACCES, Program: "x"}, 126, false},
		{report{Error: "x", Errno: syscall.E2BIG, Program: "x"}, 0, false},
		{report{Error: "x", Errno: syscall.ENOENT}, 0, false},
		{report{Left: "x", Status: 3 << 8}, 0, false},
	} {
		err := c.r.err()
		var exit *isolation.ExitError
		errors.As(err, &exit)
		if (err == nil) != c.ok || (exit == nil) != (c.code == 0) || exit != nil && (exit.Code != c.code || exit.NotExecuted != (c.r.Program != "")) {
			t.Errorf("%+v: %v", c.r, err)
		}
		if c.r.Errno != 0 && exit == nil && !errors.Is(err, c.r.Errno) {
			t.Errorf("%+v: the errno is lost", c.r)
		}
	}
}

func FuzzMessage(f *testing.F) {
	var b bytes.Buffer
	if err := writeMessage(&b, &job{Terminal: true, Trees: map[string]int{"/etc/hosts": 6}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("artsxxxx"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var j job
		if err := readMessage(bytes.NewReader(in), &j); err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeMessage(&b, &j); err != nil {
			t.Error(err)
		}
	})
}

func TestWanted(t *testing.T) {
	t.Parallel()
	set := wanted(&specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_BPF"}, Permitted: []string{"CAP_KILL", "CAP_NO_SUCH"}})
	if set != [3]uint64{bounding: 1 | 1<<39, permitted: 1 << 5} {
		t.Errorf("%x", set)
	}
	if wanted(nil) != [3]uint64{} {
		t.Error("nil gives something")
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	if got := attributes([]string{"rbind", "rro", "nosuid", "nodev", "noexec", "mode=1"}); got !=
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC {
		t.Errorf("%#x", got)
	}
}

// TestOrdinaryProcess: a program that merely has the name of a child of ours
// goes on as itself (this one is the test binary; it would not return).
func TestOrdinaryProcess(t *testing.T) {
	t.Parallel()
	if isSocket(0) && isSocket(controlFd) {
		t.Skip("the test's own descriptors are sockets")
	}
	if isSocket(1 << 20) {
		t.Error("a closed descriptor is a socket")
	}
}
