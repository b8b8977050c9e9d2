package embedded_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded"
	"github.com/stratabuild/strata/builder/isolation/isolationtest"
)

func newDriver(o embedded.Options) func(t *testing.T) isolation.Driver {
	return func(t *testing.T) isolation.Driver {
		d, err := embedded.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func TestDriver(t *testing.T) {
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{})})
}

func TestDriverAhead(t *testing.T) {
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{Ahead: true})})
}

func TestDriverNetworkNone(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite again")
	}
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{}), Network: isolation.NetworkNone})
}

func TestDriverSharedPID(t *testing.T) {
	isolationtest.Run(t, isolationtest.Suite{New: newDriver(embedded.Options{SharedPID: true, Ahead: true}),
		Lacks: []isolationtest.Feature{isolationtest.PIDNamespace}})
}

// insideVariable names the mode of a test binary that was started again in a
// user namespace.
const insideVariable = "STRATA_TEST_INSIDE"

// TestInside is the suite inside a user namespace; see TestRootless.
func TestInside(t *testing.T) {
	mode := os.Getenv(insideVariable)
	if mode == "" {
		t.Skip("runs within TestRootless only")
	}
	s := isolationtest.Suite{New: newDriver(embedded.Options{}), Rootless: true, SingleID: mode == "single"}
	for _, s.Network = range []isolation.NetworkMode{isolation.NetworkHost, isolation.NetworkNone} {
		t.Run(string(s.Network), func(t *testing.T) { isolationtest.Run(t, s) })
	}
}

// TestRootless runs the suite as an unprivileged user in a user namespace,
// with one id and, where this process may map more, with many.
func TestRootless(t *testing.T) {
	own := os.Getuid()
	for _, mode := range []string{"single", "full"} {
		t.Run(mode, func(t *testing.T) {
			uid, gid, size := own, os.Getgid(), 1
			if own == 0 {
				uid, gid = 543210, 543210
			}
			if mode == "full" {
				if own != 0 {
					t.Skip("needs root to map many ids")
				}
				size = 65536
			}
			tmp, err := os.MkdirTemp("", "rootless")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(tmp) })
			if err := os.Chown(tmp, uid, gid); err != nil {
				t.Fatal(err)
			}
			// Where the user can execute it.
			exe := filepath.Join(tmp, "suite")
			b, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(exe, b, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(exe, 0o755); err != nil {
				t.Fatal(err)
			}
			c := exec.CommandContext(t.Context(), exe, "-test.run=^TestInside$", "-test.v")
			c.Env = append(os.Environ(), insideVariable+"="+mode, "TMPDIR="+tmp, "HOME="+tmp)
			c.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings:                []syscall.SysProcIDMap{{HostID: uid, Size: size}},
				GidMappings:                []syscall.SysProcIDMap{{HostID: gid, Size: size}},
				GidMappingsEnableSetgroups: size > 1,
				Credential:                 &syscall.Credential{NoSetGroups: size == 1},
				Pdeathsig:                  syscall.SIGKILL,
			}
			out, err := c.CombinedOutput()
			if c.ProcessState == nil {
				t.Skipf("no user namespace: %v", err)
			}
			t.Logf("%s", out)
			if err != nil {
				t.Error(fmt.Errorf("suite in a user namespace: %w", err))
			}
		})
	}
}
