package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

func baseLayer(t *testing.T, st *Store) define.LayerID {
	t.Helper()
	l, err := st.Raw().CreateLayer("", "", nil, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return define.LayerID(l.ID)
}

func eachDriver(t *testing.T, test func(t *testing.T, st *Store, dir string)) {
	t.Helper()
	for _, d := range []string{"overlay", "vfs"} {
		t.Run(d, func(t *testing.T) {
			st, dir := newStore(t, d)
			test(t, st, dir)
		})
	}
}

func TestWorkspace(t *testing.T) {
	eachDriver(t, func(t *testing.T, st *Store, _ string) {
		ctx := context.Background()
		below := baseLayer(t, st)
		base, err := st.Raw().CreateLayer("", string(below), nil, "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		idle := st.NewWorkspace() // costs nothing and leaves nothing
		w := st.NewWorkspace()
		for _, id := range []define.LayerID{"", define.LayerID(base.ID), below, define.LayerID(base.ID)} {
			if err := w.Pin(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
		if layers, _ := st.Raw().Layers(); len(layers) != 3 {
			t.Errorf("%d layers, want the two and one pin", len(layers))
		}
		if err := st.Raw().DeleteLayer(base.ID); !errors.Is(err, storage.ErrLayerHasChildren) {
			t.Errorf("removing what is pinned: %v", err)
		}
		if err := w.Pin(ctx, "0123"); !errors.Is(err, define.ErrNotFound) {
			t.Errorf("pinning what is not there: %v", err)
		}
		path, dir, err := w.Dir(ctx)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := w.Dir(ctx)
		if err != nil || again != path || dir.Name() != path {
			t.Errorf("a second time it is %s, %v", again, err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("the scratch directory is %v, %v", fi, err)
		}
		if err := os.WriteFile(filepath.Join(path, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if left, err := st.Sweep(ctx); err != nil || left.Workspaces != 0 {
			t.Errorf("a living workspace was swept: %+v %v", left, err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := idle.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the scratch directory is left: %v", err)
		}
		if err := w.Pin(ctx, below); !errors.Is(err, define.ErrInvalid) && err != nil {
			t.Errorf("a closed workspace: %v", err)
		}
		if err := st.Raw().DeleteLayer(base.ID); err != nil {
			t.Errorf("removing what was pinned: %v", err)
		}
		leftNothing(t, st)
	})
}

func leftNothing(t *testing.T, st *Store) {
	t.Helper()
	state, err := st.StateDir()
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(state, "work")); len(entries) != 0 {
		t.Errorf("left in the state directory: %v", entries)
	}
	layers, err := st.Raw().Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if len(l.Names) > 0 {
			t.Errorf("layer %v is left", l.Names)
		}
	}
}

// childHold makes a workspace with all that one can have, says how far it
// came after each step, and waits to be killed.
func childHold() error {
	st, err := openDir(os.Getenv("STRATA_TEST_DIR"), os.Getenv("STRATA_TEST_DRIVER"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	w := st.NewWorkspace()
	said := 0
	say := func() {
		said++
		fmt.Println("step", said)
	}
	say()
	if err := w.Pin(ctx, define.LayerID(os.Getenv("STRATA_TEST_LAYER"))); err != nil {
		return err
	}
	say()
	path, _, err := w.Dir(ctx)
	if err != nil {
		return err
	}
	say()
	if err := os.MkdirAll(filepath.Join(path, "1/upper/closed"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path, "1/upper/closed/f"), make([]byte, 10000), 0); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(path, "1/upper/closed"), 0); err != nil {
		return err
	}
	name, err := w.LayerName(ctx)
	if err != nil {
		return err
	}
	l, err := st.Raw().CreateLayer("", "", []string{name}, "", true, nil)
	if err != nil {
		return err
	}
	if os.Getenv("STRATA_TEST_DRIVER") == "vfs" { // elsewhere it would be a mount of this namespace
		if _, err := st.Raw().Mount(l.ID, ""); err != nil {
			return err
		}
	}
	say()
	time.Sleep(time.Minute)
	return nil
}

func TestSweepAfterKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, st *Store, dir string) {
		ctx := context.Background()
		base := baseLayer(t, st)
		for at := 1; at <= 4; at++ {
			cmd := exec.Command("/proc/self/exe", "-test.run=^$")
			cmd.Env = append(os.Environ(), "STRATA_TEST_CHILD=hold", "STRATA_TEST_DIR="+dir,
				"STRATA_TEST_DRIVER="+st.Raw().GraphDriverName(), "STRATA_TEST_LAYER="+string(base))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("step %d", at)
			lines := bufio.NewScanner(out)
			for lines.Scan() && lines.Text() != want {
			}
			if at > 1 {
				if left, err := st.Sweep(ctx); err != nil || left.Workspaces != 0 {
					t.Errorf("swept while it lived: %+v %v", left, err)
				}
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			left, err := st.Sweep(ctx)
			if err != nil {
				t.Errorf("killed at step %d: %v", at, err)
			}
			if at > 1 && left.Workspaces != 1 || at == 4 && left.Bytes < 10000 {
				t.Errorf("killed at step %d: collected %+v", at, left)
			}
			leftNothing(t, st)
		}
		if layers, _ := st.Raw().Layers(); len(layers) != 1 {
			t.Errorf("%d layers, want the base", len(layers))
		}
		report, err := st.Raw().Check(storage.CheckEverything())
		if err != nil || len(report.Layers) > 0 {
			t.Errorf("the store is not sound: %v %v", report.Layers, err)
		}
	})
}

// A process is killed at any moment of making and closing workspaces.
func TestSweepAfterKillAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	st, dir := newStore(t, "overlay")
	base := baseLayer(t, st)
	for n := range 12 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), "STRATA_TEST_CHILD=hold", "STRATA_TEST_DIR="+dir, "STRATA_TEST_DRIVER=overlay", "STRATA_TEST_LAYER="+string(base))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = bufio.NewReader(out).ReadString('\n')
		time.Sleep(time.Duration(n) * 2 * time.Millisecond)
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		if _, err := st.Sweep(context.Background()); err != nil {
			t.Error(err)
		}
		leftNothing(t, st)
	}
	if _, err := st.Raw().Layer(string(base)); err != nil {
		t.Error(err)
	}
}

func childLock() error {
	st, err := openDir(os.Getenv("STRATA_TEST_DIR"), "vfs")
	if err != nil {
		return err
	}
	if _, err := st.Lock(context.Background()); err != nil {
		return err
	}
	fmt.Println("locked", os.Getpid())
	time.Sleep(time.Minute)
	return nil
}

func TestLock(t *testing.T) {
	st, dir := newStore(t, "vfs")
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "STRATA_TEST_CHILD=lock", "STRATA_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = st.Lock(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strings.TrimPrefix(strings.TrimSpace(line), "locked ")) {
		t.Errorf("while %sthe error is %v", line, err)
	}
	_ = cmd.Process.Kill()
	unlock, err := st.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := st.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	unlock, err = st.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestRemoveTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "tree")
	canary := filepath.Join(dir, "canary")
	if err := os.WriteFile(canary, []byte("stays"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "a/closed/inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "a/closed/inner/f"), make([]byte, 8192), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(root, "a/out")); err != nil {
		t.Fatal(err)
	}
	immutable := filepath.Join(root, "a/immutable")
	if err := os.WriteFile(immutable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for _, p := range []string{immutable, filepath.Join(root, "a")} {
			f, err := os.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10) // FS_IMMUTABLE_FL
			f.Close()
		}
	}
	for _, d := range []string{"a/closed/inner", "a/closed"} {
		_ = os.Chmod(filepath.Join(root, d), 0)
	}
	at, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 700 { // deeper than paths can say, and than descriptors should be held
		if err := unix.Mkdirat(at, "long-directory-name", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "long-directory-name", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	unix.Close(at)
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	bytes, err := RemoveTree(d, "tree")
	if err != nil || bytes < 8192 {
		t.Errorf("%d bytes, %v", bytes, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "stays" {
		t.Errorf("the canary: %q %v", b, err)
	}
	if _, err := RemoveTree(nil, root); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}
