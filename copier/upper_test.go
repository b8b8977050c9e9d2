package copier

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/fstree"
	"golang.org/x/sys/unix"
)

// overlay makes a detached overlay mount of lower and an empty upper, which
// goes away with its descriptor.
func overlay(t testing.TB, lowerSpec string) (merged, upper *Root, upperDir string) {
	t.Helper()
	needRoot(t)
	base := t.TempDir()
	for _, d := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fstree.Make(t, filepath.Join(base, "lower"), lowerSpec)
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	defer unix.Close(fsfd)
	for k, v := range map[string]string{"lowerdir": "lower", "upperdir": "upper", "workdir": "work"} {
		if err := unix.FsconfigSetString(fsfd, k, filepath.Join(base, v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Skipf("cannot mount an overlay here: %v", err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Skipf("cannot mount an overlay here: %v", err)
	}
	f := os.NewFile(uintptr(mfd), "merged")
	defer f.Close()
	if merged, err = NewRoot(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { merged.Close() })
	upperDir = filepath.Join(base, "upper")
	return merged, openRoot(t, upperDir, false), upperDir
}

const upperSource = `
/d/new/f file 4711 1:2 "content" @5.000000000 user.a="1"
/d/new/sub/g file 0644 3:4 "g"
/d/new/sub dir 0700 5:6 @6.000000000
/d/new/l link 7:8 -> f
/d/new dir 2750 9:10 @7.000000000 user.b="2"
/d/old/x file 0600 0:0 "x"
/d/new/h hard /d/old/x
/d/old/y hard /d/new/sub/g
/d/old/deep/er/z file "z"
/d/old dir 0711 @8.000000000
/d/replaced file "now a file"
/d/top file "t"
/d/tophard hard /d/new/f
`

// TestUpper: writing past the overlay gives the same upper directory, and the
// same sight of it, as writing through it.
func TestUpper(t *testing.T) {
	t.Parallel()
	const lower = "/etc/passwd file \"\"\n/dst/old/low file \"low\"\n/dst/replaced file \"old\"\n/dst dir @3.000000000\n/gone/x file \"\""
	src, _ := makeRoot(t, upperSource, false)
	for _, dest := range []string{"/dst", "/brand/new/", "/", "/gone/x/y", "/gone"} {
		var uppers, merges []string
		for _, past := range []bool{false, true} {
			merged, upper, dir := overlay(t, lower)
			// A whiteout in the upper: what is made over it becomes opaque.
			if err := merged.RemoveAll("gone"); err != nil {
				t.Fatal(err)
			}
			p := Put{Dest: dest}
			if past {
				p.Upper = upper
			}
			sel, err := src.Select(context.Background(), Select{Patterns: []string{"d"}})
			if err != nil {
				t.Fatal(err)
			}
			pt := newPutter(context.Background(), merged, p)
			if err := pt.put(sel); err != nil {
				t.Fatal(err)
			}
			uppers = append(uppers, dumpUpper(t, dir, fstree.Contents))
			merges = append(merges, dumpRoot(t, merged))
			// Another Put over what the first made.
			if err := sel.Put(context.Background(), merged, p); err != nil {
				t.Fatalf("again: %v", err)
			}
			if got := dumpRoot(t, merged); got != merges[len(merges)-1] {
				t.Errorf("%s, past %v: after a second Put the root is\n%swas\n%s", dest, past, got, merges[len(merges)-1])
			}
		}
		if uppers[0] != uppers[1] {
			t.Errorf("%s: past the overlay the upper is\n%sthrough it\n%s", dest, uppers[1], uppers[0])
		}
		if merges[0] != merges[1] {
			t.Errorf("%s: past the overlay the root is\n%sthrough it\n%s", dest, merges[1], merges[0])
		}
	}
}

// origin is a file handle of the lower file, different each time: any bytes.
var origin = regexp.MustCompile(` trusted\.overlay\.origin="(?:[^"\\]|\\.)*"`)

func dumpUpper(t testing.TB, dir string, opts ...fstree.Option) string {
	t.Helper()
	return origin.ReplaceAllString(fstree.MustDump(t, dir, opts...), "")
}

// dumpRoot dumps what a Root shows, including a detached mount.
func dumpRoot(t testing.TB, r *Root) string {
	t.Helper()
	return fstree.MustDump(t, fmt.Sprintf("/proc/self/fd/%d/", r.File().Fd()), fstree.Contents)
}

// TestUpperIsUsed: new subtrees really are written past the overlay.
func TestUpperIsUsed(t *testing.T) {
	t.Parallel()
	merged, upper, _ := overlay(t, "/a/b file \"\"")
	pt := newPutter(context.Background(), merged, Put{Upper: upper})
	defer pt.pool.cancel(nil)
	d, made, err := pt.openDest("/a/new/er")
	if err != nil {
		t.Fatal(err)
	}
	if !made || !d.inUpper {
		t.Errorf("made %v, in upper %v", made, d.inUpper)
	}
	d.release()
	if d, made, err = pt.openDest("/a"); err != nil || made || d.inUpper {
		t.Errorf("existing: made %v, in upper %v, %v", made, d.inUpper, err)
	}
	d.release()
	if err := pt.close(); err != nil {
		t.Fatal(err)
	}
}

// TestOverlayIdentity: equal inputs give equal uppers, times included.
func TestOverlayIdentity(t *testing.T) {
	t.Parallel()
	src, _ := makeRoot(t, upperSource, false)
	var first string
	for range 2 {
		merged, upper, dir := overlay(t, "/dst/old/low file \"low\" @1.000000000\n/dst/old dir @2.000000000\n/dst dir @3.000000000")
		for _, dest := range []string{"/dst", "/dst/n/m/"} {
			sel, err := src.Select(context.Background(), Select{Patterns: []string{"d"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := sel.Put(context.Background(), merged, Put{Dest: dest, Upper: upper}); err != nil {
				t.Fatal(err)
			}
		}
		got := dumpUpper(t, dir, fstree.Contents, fstree.Times)
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("uppers differ:\n%s%s", first, got)
		}
		if !strings.Contains(got, "/dst dir 0755 0:0 @3.000000000") {
			t.Errorf("the destination's time changed:\n%s", got)
		}
	}
}
