package copier

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// A Put with Hash leaves the digests that reading the files again would give.
func TestPutHash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	for _, d := range []string{filepath.Join(src, "sub"), dst} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", "")
	write("small", "small")
	write("sub/large", strings.Repeat("large\n", 200_000))
	if err := os.Link(filepath.Join(src, "sub/large"), filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("small", filepath.Join(src, "symlink")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "sparse"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(src, "sparse"), 3<<20); err != nil {
		t.Fatal(err)
	}
	from, err := OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := OpenRoot(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	ctx := context.Background()
	selected := func() *Selection {
		s, err := from.Select(ctx, Select{Patterns: []string{"."}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	want, err := selected().Digests(ctx, DigestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := selected()
	if err := s.Put(ctx, to, Put{Dest: "/", Hash: true}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Digests(ctx, DigestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.List(), want.List()) {
		t.Errorf("digests after Put:\n%v\nwant\n%v", got.List(), want.List())
	}
	// Other options need the contents once more, of the same files.
	if want, err = selected().Digests(ctx, DigestOptions{KeepOwner: true}); err != nil {
		t.Fatal(err)
	}
	if got, err = s.Digests(ctx, DigestOptions{KeepOwner: true}); err != nil || !reflect.DeepEqual(got.List(), want.List()) {
		t.Errorf("digests with owners after Put: %v\n%v\nwant\n%v", err, got.List(), want.List())
	}
	// What changed since is no longer what was copied.
	s = selected()
	if err := s.Put(ctx, to, Put{Dest: "/", Hash: true}); err != nil {
		t.Fatal(err)
	}
	write("small", "other")
	if _, err := s.Digests(ctx, DigestOptions{}); err == nil || !strings.Contains(err.Error(), "small changed") {
		t.Errorf("a file changed after it was copied: %v", err)
	}
}
