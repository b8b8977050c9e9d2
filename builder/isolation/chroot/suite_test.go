package chroot

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
)

// inside says that this process was started in a user namespace by
// TestRootless.
const inside = "STRATA_CHROOT_TEST_USERNS"

// always is what the driver never has.
var always = []isolationtest.Feature{
	isolationtest.PIDNamespace, isolationtest.SharedPID, isolationtest.IPCNamespace, isolationtest.UTSNamespace, isolationtest.CgroupNamespace,
}

func suite(t *testing.T, o Options, lacks ...isolationtest.Feature) {
	o.TempDir = t.TempDir()
	isolationtest.Run(t, isolationtest.Suite{
		New: func(t *testing.T) isolation.Driver {
			d, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Rootless: os.Getenv(inside) != "", SingleID: os.Getenv(inside) != "", Lacks: append(lacks, always...),
	})
}

func TestMounts(t *testing.T) { suite(t, Options{}) }

// TestRootless runs the suite again in a user namespace that maps one id.
func TestRootless(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("is the inner one")
	}
	args := []string{"-test.run", "^(TestMounts|TestBare.*)$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(err.Error(), "operation not permitted") {
		t.Skipf("no user namespaces: %v", err)
	}
	t.Log(string(out))
	if err != nil {
		t.Error(err)
	}
}
