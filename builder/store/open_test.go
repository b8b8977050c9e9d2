package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	eachDriver(t, func(t *testing.T, st *Store, dir string) {
		ok, reason := st.ZeroCopy()
		if want := st.Raw().GraphDriverName() == "overlay"; ok != want || ok != (reason == "") {
			t.Errorf("zero-copy %v %q", ok, reason)
		}
		state, err := st.StateDir()
		if err != nil || state != filepath.Join(dir, "root", "strata") {
			t.Errorf("state directory %s, %v", state, err)
		}
		if fi, err := os.Stat(state); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("state directory %v, %v", fi.Mode(), err)
		}
		if err := st.Sync(context.Background()); err != nil {
			t.Error(err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("opening left a mount: %v", err)
		}
		again, err := openDir(dir, st.Raw().GraphDriverName())
		if err != nil || again.Raw() != st.Raw() {
			t.Errorf("opened a second time: %v", err)
		}
	})
}

func TestOpenOptions(t *testing.T) {
	t.Parallel()
	so, _, err := storeOptions(Options{Root: "/r", RunRoot: "/u", Driver: "overlay", SingleID: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"overlay.skip_mount_home=true", "overlay.ignore_chown_errors=true", "vfs.ignore_chown_errors=true"}
	if so.GraphRoot != "/r" || so.RunRoot != "/u" || so.GraphDriverName != "overlay" || !slices.Equal(so.GraphDriverOptions, want) {
		t.Errorf("%+v", so)
	}
	so, _, err = storeOptions(Options{Root: "/r", RunRoot: "/u", DriverOptions: []string{"overlay.mountopt=nodev"}})
	if err != nil || so.GraphDriverOptions[0] != "overlay.mountopt=nodev" {
		t.Errorf("%+v %v", so, err)
	}
	if _, _, err := storeOptions(Options{Root: "/a:b", RunRoot: "/u"}); !errors.Is(err, define.ErrInvalid) {
		t.Errorf("a colon: %v", err)
	}
}

func TestZeroCopyReasons(t *testing.T) {
	for _, o := range []string{"overlay.use_composefs=true", "force_mask=700"} {
		t.Run(o, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("a store needs root or a user namespace")
			}
			dir := t.TempDir()
			st, err := Open(context.Background(), Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay", DriverOptions: []string{o}})
			if err != nil {
				t.Skip("not to be opened here: ", err)
			}
			defer st.Raw().Free()
			defer st.Close()
			key := o[strings.LastIndex(o, ".")+1 : strings.Index(o, "=")]
			if ok, reason := st.ZeroCopy(); ok || !strings.Contains(reason, key) {
				t.Errorf("%v %q", ok, reason)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "root"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := openDir(dir, "vfs")
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "root")) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "a/b")
	for err, want := range map[error]string{
		unix.ENOSPC: "bytes free", unix.EDQUOT: "quota", unix.EROFS: "read-only", unix.EIO: "disk", unix.EMFILE: "ulimit -n",
	} {
		got := Explain(missing, &os.PathError{Op: "write", Path: "x", Err: err})
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if Explain("/", nil) != nil || Explain("/", unix.ENOENT) != unix.ENOENT {
		t.Error("other errors changed")
	}
}

func BenchmarkOpen(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("a store needs root or a user namespace")
	}
	dir := b.TempDir()
	for b.Loop() {
		st, err := openDir(dir, "overlay")
		if err != nil {
			b.Fatal(err)
		}
		st.Close()
		st.Raw().Free()
	}
}
