package embedded_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
)

// maskedVariable holds how deep in TestMasked's places the process is.
const maskedVariable = "STRATA_TEST_MASKED"

// TestMasked runs the suite where parts of /proc are hidden by mounts that
// cannot be taken away, as container engines do: the kernel then refuses
// another /proc, and steps share the pid namespace.
func TestMasked(t *testing.T) {
	switch os.Getenv(maskedVariable) {
	case "":
		again(t, "outer")
	case "outer":
		mask(t)
		// What is mounted outside of a user namespace is locked within.
		again(t, "inner")
	case "inner":
		d := newDriver(embedded.Options{})(t)
		defer d.Close()
		err := d.Available(t.Context())
		if err == nil || !strings.Contains(err.Error(), "/proc") || strings.Contains(err.Error(), "\n") {
			t.Errorf("with a pid namespace: %v, want a line about /proc", err)
		}
		shared := newDriver(embedded.Options{SharedPID: true})(t)
		if err := shared.Available(t.Context()); err != nil {
			t.Errorf("without a pid namespace: %v", err)
		}
		if err := shared.Close(); err != nil {
			t.Error(err)
		}
		isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{SharedPID: true}), Rootless: true, SingleID: true,
			Lacks: []isolationtest.Feature{isolationtest.PIDNamespace}})
	}
}

// again runs the test in new user and mount namespaces.
func again(t *testing.T, depth string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMasked$", "-test.v")
	if testing.Short() {
		c.Args = append(c.Args, "-test.short")
	}
	c.Env = append(os.Environ(), maskedVariable+"="+depth)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Skipf("no user namespace: %v", err)
	}
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// mask hides what docker hides first.
func mask(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"} {
		if unix.Mount("/dev/null", file, "", unix.MS_BIND, "") == nil {
			return
		}
	}
	t.Skip("nothing in /proc can be hidden")
}
