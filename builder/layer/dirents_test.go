package layer

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Names of all lengths come out of a directory as they are, sorted, each with
// its NUL, and without what lies beside them in the kernel's records.
func TestListerNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var want []string
	for i := range unix.NAME_MAX {
		for _, c := range []string{"a", "\xff"} {
			name := strings.Repeat(c, i+1)
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			want = append(want, name+"\x00")
		}
	}
	for _, name := range []string{"...", ".x", "a b", "line\nbreak"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		want = append(want, name+"\x00")
	}
	slices.Sort(want)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := newLister().names(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d names, want %d:\n%q", len(got), len(want), got)
	}
}

// Records that are cut short or lie about their length end the list.
func TestPackDirents(t *testing.T) {
	t.Parallel()
	record := func(name string, length int) []byte {
		b := make([]byte, length)
		binary.LittleEndian.PutUint16(b[16:], uint16(length))
		copy(b[19:], name)
		return b
	}
	for _, tt := range []struct {
		in   []byte
		want string
	}{
		{nil, ""},
		{record("a", 24), "a\x00"},
		{slices.Concat(record(".", 24), record("..", 24), record("file", 32), record("b", 24)), "file\x00b\x00"},
		{record("", 24), ""},
		{append(record("a", 24), record("b", 24)[:20]...), "a\x00"},
		{append(record("a", 24), make([]byte, 24)...), "a\x00"},
		{record("no end", 24), ""},
	} {
		if got := string(packDirents(slices.Clone(tt.in))); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}
