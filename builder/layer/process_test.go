package layer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/store"
)

func init() { children["commit"] = childCommit }

// childCommit commits the same three layers as its brothers do, and one of
// its own.
func childCommit() error {
	dir := os.Getenv("STRATA_TEST_DIR")
	ctx := context.Background()
	st, err := store.Open(ctx, store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: os.Getenv("STRATA_TEST_DRIVER")})
	if err != nil {
		return err
	}
	sp := NewSpace(st)
	zero := time.Unix(0, 0)
	var top *Layer
	for n := range 4 {
		w, err := sp.Begin(ctx, top, BeginOptions{})
		if err != nil {
			return err
		}
		content := strconv.Itoa(n)
		if n == 3 {
			content = strconv.Itoa(os.Getpid())
		}
		if err := os.WriteFile(in(w.Root(), "file"+strconv.Itoa(n)), []byte(content), 0o644); err != nil {
			return err
		}
		if top, err = w.Freeze(ctx, FreezeOptions{Timestamp: &zero}); err != nil {
			return err
		}
	}
	v, err := sp.View(ctx, top)
	if err != nil {
		return err
	}
	for n := range 4 {
		if _, err := os.ReadFile(in(v.Root(), "file"+strconv.Itoa(n))); err != nil {
			return err
		}
	}
	if err := v.Close(); err != nil {
		return err
	}
	info, err := top.Parent().Wait(ctx)
	if err != nil {
		return err
	}
	if _, err := top.Wait(ctx); err != nil {
		return err
	}
	fmt.Println(info.ID)
	return sp.Close()
}

func child(name string, env ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(append(os.Environ(), "STRATA_TEST_CHILD="+name), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	return cmd, &out, &errs
}

func TestProcessesCommitTheSameLayers(t *testing.T) {
	eachDriver(t, func(t *testing.T, f *fixture) {
		dir := filepath.Dir(f.st.Raw().GraphRoot())
		processes := 6
		if f.st.Raw().GraphDriverName() == "vfs" {
			if os.Getenv("STRATA_TEST_USERNS") != "" {
				t.Skip("as outside")
			}
			processes = 2 // each layer is a copy, and processes take long turns at the store's lock
		}
		cmds := make([]*exec.Cmd, processes)
		outs, errs := make([]*bytes.Buffer, processes), make([]*bytes.Buffer, processes)
		for i := range cmds {
			cmds[i], outs[i], errs[i] = child("commit", "STRATA_TEST_DIR="+dir, "STRATA_TEST_DRIVER="+f.st.Raw().GraphDriverName())
			if err := cmds[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range cmds {
			if err := cmds[i].Wait(); err != nil {
				t.Errorf("process %d: %v: %s", i, err, errs[i])
			}
			if outs[i].String() != outs[0].String() {
				t.Errorf("process %d made %s, another %s", i, outs[i], outs[0])
			}
		}
		layers, err := f.st.Raw().Layers()
		if err != nil || len(layers) != 3+processes {
			t.Errorf("%d layers, want %d: %v", len(layers), 3+processes, err)
		}
		f.check()
	})
}

// userTests are run again in user namespaces.
const userTests = "^(TestChain|TestSameLayerTwice|TestTimes|TestOmit|TestBottom|TestSquash|TestDiscard|TestStream.*|TestProcesses.*|TestImmutable.*)$"

func TestInUserNamespace(t *testing.T) {
	if os.Getenv("STRATA_TEST_USERNS") != "" {
		t.Skip("is in one")
	}
	if testing.Short() {
		t.Skip("runs many tests again")
	}
	for _, size := range []int{65536, 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			inside, outside := 0, os.Getuid()
			if outside == 0 {
				outside = 200000 // a range that nobody else has
			} else if size > 1 {
				t.Skip("mapping a range of ids needs root")
			}
			dir, err := os.MkdirTemp("", "strata-userns-")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if _, err := store.RemoveTree(nil, dir); err != nil {
					t.Error(err)
				}
			}()
			if err := os.Chown(dir, outside, outside); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", "-test.run="+userTests, "-test.timeout=300s")
			cmd.Env = append(os.Environ(), "STRATA_TEST_USERNS="+strconv.Itoa(size), "TMPDIR="+dir, "HOME="+dir, "XDG_RUNTIME_DIR="+dir,
				"_CONTAINERS_USERNS_CONFIGURED=done", "_CONTAINERS_ROOTLESS_UID="+strconv.Itoa(outside), "_CONTAINERS_ROOTLESS_GID="+strconv.Itoa(outside))
			cmd.Dir = dir
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: size}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: size}},
				Credential:  &syscall.Credential{NoSetGroups: os.Getuid() != 0},
			}
			out, err := cmd.CombinedOutput()
			if err != nil && (strings.Contains(err.Error(), "operation not permitted") || strings.Contains(err.Error(), "no space left")) {
				t.Skip("user namespaces are not permitted here: ", err)
			}
			if err != nil {
				t.Errorf("%v\n%.4000s", err, out)
			}
		})
	}
}

// TestMountProgram runs tests again on an overlay that a program mounts, in a
// mount namespace of their own.
func TestMountProgram(t *testing.T) {
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil || os.Getuid() != 0 || os.Getenv("STRATA_TEST_USERNS") != "" || testing.Short() {
		t.Skip("needs root and fuse-overlayfs: ", err)
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip("needs FUSE: ", err)
	} else {
		f.Close()
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^(TestChain|TestSameLayerTwice|TestTimes|TestSquash|TestDiscard|TestCancel)$/overlay")
	cmd.Env = append(os.Environ(), "STRATA_TEST_MOUNT_PROGRAM="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%.4000s", err, out)
	}
}

func init() { children["commits"] = childCommits }

// childCommits commits layer after layer until it is killed.
func childCommits() error {
	dir := os.Getenv("STRATA_TEST_DIR")
	ctx := context.Background()
	st, err := store.Open(ctx, store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay"})
	if err != nil {
		return err
	}
	sp := NewSpace(st)
	var top *Layer
	for n := range 100 {
		w, err := sp.Begin(ctx, top, BeginOptions{})
		if err != nil {
			return err
		}
		if err := os.WriteFile(in(w.Root(), "file"+strconv.Itoa(n)), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return err
		}
		if top, err = w.Freeze(ctx, FreezeOptions{}); err != nil {
			return err
		}
		fmt.Println(n)
	}
	_, err = top.Wait(ctx)
	return err
}

func TestKilledWhileCommitting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	f := newFixture(t, "overlay")
	for n := range 8 {
		cmd, _, _ := child("commits", "STRATA_TEST_DIR="+filepath.Dir(f.st.Raw().GraphRoot()))
		cmd.Stdout = nil
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + n {
			lines.Scan()
		}
		time.Sleep(time.Duration(n) * 3 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := f.st.Sweep(context.Background()); err != nil {
			t.Error(err)
		}
		leftNothing(t, f.st)
	}
	f.wait(f.base())
	f.check()
}
