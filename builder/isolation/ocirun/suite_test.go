package ocirun

import (
	"flag"
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
const inside = "STRATA_OCIRUN_TEST_USERNS"

func TestMain(m *testing.M) {
	// runc and crun set HOME when it is missing (doc.go).
	skip := "Test.*/environment_is_exact"
	f := flag.Lookup("test.skip")
	if f == nil {
		panic("no -test.skip")
	}
	flag.Parse()
	if given := f.Value.String(); given != "" {
		skip = given
	}
	if err := flag.Set("test.skip", skip); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func installed(t testing.TB, name string) string {
	t.Helper()
	p := find(name)
	if p == "" {
		t.Skipf("%s is not installed", name)
	}
	return p
}

func suite(t *testing.T, runtime string, lacks ...isolationtest.Feature) {
	isolationtest.Run(t, isolationtest.Suite{
		New: func(t *testing.T) isolation.Driver {
			d, err := New(Options{Runtime: installed(t, runtime), TempDir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Rootless: inUserNamespace(), SingleID: inUserNamespace(), Lacks: lacks,
	})
}

// The suite tries the device of /dev/zero, which runc's list allows wherever
// its node lies: TestRuncDevices tries others.
func TestRunc(t *testing.T) {
	suite(t, "runc", isolationtest.Nodev, isolationtest.KeptGroups, isolationtest.SharedPID)
}
func TestCrun(t *testing.T) {
	suite(t, "crun", isolationtest.Nodev, isolationtest.Terminal, isolationtest.SharedPID, isolationtest.PeerGroups)
}

// TestRootless runs the suites again in a user namespace that maps one id.
func TestRootless(t *testing.T) {
	if os.Getenv(inside) != "" {
		t.Skip("is the inner one")
	}
	args := []string{"-test.run", "^(TestRunc|TestCrun)$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1", "USER=somebody")
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
