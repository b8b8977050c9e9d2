package copier

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stratabuild/strata/tests/fstree"
)

func digestsOf(t testing.TB, spec string, o DigestOptions, patterns ...string) []FileDigest {
	t.Helper()
	r, _ := makeRoot(t, spec, false)
	return digestsIn(t, r, o, patterns...)
}

func digestsIn(t testing.TB, r *Root, o DigestOptions, patterns ...string) []FileDigest {
	t.Helper()
	sel, err := r.Select(context.Background(), Select{Patterns: patterns})
	if err != nil {
		t.Fatal(err)
	}
	d, err := sel.Digests(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d.List()
}

// TestDigestsDiffer: whatever counts changes a digest, and what does not, does
// not.
func TestDigestsDiffer(t *testing.T) {
	t.Parallel()
	const base = `/d/f file 0644 "content"
/d/g file 0644 "content"
/d/l link -> f
/d/s dir 0755
/d/p fifo 0600`
	change := func(from, to string) string { return strings.Replace(base, from, to, 1) }
	for name, c := range map[string]struct {
		spec string
		same bool
	}{
		"nothing":              {base, true},
		"time":                 {change(`"content"`, `"content" @77.000000000`), true},
		"directory time":       {change("/d/s dir 0755", "/d/s dir 0755 @77.000000000"), true},
		"source directory":     {base + "\n/d dir 0700", true},
		"content":              {change(`"content"`, `"Content"`), false},
		"mode":                 {change("0644", "0640"), false},
		"setuid":               {change("0644", "4644"), false},
		"directory mode":       {change("0755", "0750"), false},
		"link":                 {change("-> f", "-> g"), false},
		"link to file":         {change("/d/l link -> f", `/d/l file "f"`), false},
		"attribute":            {change(`"content"`, `"content" user.a="1"`), false},
		"directory attribute":  {change("/d/s dir 0755", "/d/s dir 0755 user.a=\"1\""), false},
		"hard link":            {change(`/d/g file 0644 "content"`, "/d/g hard /d/f"), false},
		"hard link of outside": {base + "\n/e hard /d/f", true},
		"name":                 {change("/d/p", "/d/q"), false},
		"more":                 {base + "\n/d/z file \"\"", false},
		"fifo mode":            {change("fifo 0600", "fifo 0640"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := digestsOf(t, base, DigestOptions{}, "d")
			got := digestsOf(t, c.spec, DigestOptions{}, "d")
			if same := slices.Equal(got, want); same != c.same {
				t.Errorf("equal is %v, want %v:\n%v\n%v", same, c.same, got, want)
			}
		})
	}
}

func TestDigestsOrder(t *testing.T) {
	t.Parallel()
	got := digestsOf(t, "/b/x file \"1\"\n/b/a/y file \"2\"\n/b/a.z file \"3\"\n/f file \"4\"\n/a/x file \"5\"", DigestOptions{}, "b", "f", "a")
	var paths []string
	for _, d := range got {
		paths = append(paths, d.Path)
		if d.Digest.Validate() != nil {
			t.Errorf("%s: digest %q", d.Path, d.Digest)
		}
	}
	if want := []string{".", ".", "a", "a.z", "a/y", "f", "x", "x"}; !slices.Equal(paths, want) {
		t.Errorf("paths are %q, want %q", paths, want)
	}
}

func TestDigestsOwner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a, b := "/f file 0644 1:2 \"\"", "/f file 0644 1:3 \"\""
	if !slices.Equal(digestsOf(t, a, DigestOptions{}, "f"), digestsOf(t, b, DigestOptions{}, "f")) {
		t.Error("owners count without KeepOwner")
	}
	if slices.Equal(digestsOf(t, a, DigestOptions{KeepOwner: true}, "f"), digestsOf(t, b, DigestOptions{KeepOwner: true}, "f")) {
		t.Error("owners do not count with KeepOwner")
	}
	if slices.Equal(digestsOf(t, "/f char 0644 1,2", DigestOptions{}, "f"), digestsOf(t, "/f char 0644 1,3", DigestOptions{}, "f")) {
		t.Error("device numbers do not count")
	}
}

// TestObjectEncoding: fields next to each other cannot be confused.
func TestObjectEncoding(t *testing.T) {
	t.Parallel()
	x := func(kv ...string) *body {
		b := &body{}
		for i := 0; i < len(kv); i += 2 {
			b.xattrs = append(b.xattrs, xattr{kv[i], []byte(kv[i+1])})
		}
		return b
	}
	sum := func(o object, kv ...string) [32]byte { return o.digest(x(kv...)) }
	seen := map[[32]byte]int{}
	for i, d := range [][32]byte{
		sum(object{link: "ab"}), sum(object{link: "a", hardlink: "b"}), sum(object{hardlink: "ab"}),
		sum(object{owned: true, uid: 1, gid: 12}), sum(object{owned: true, uid: 11, gid: 2}), sum(object{owned: true, link: "0:0"}), sum(object{link: "0:0"}),
		sum(object{rdev: 1}), sum(object{mode: 1}), sum(object{typ: 1}), (&object{}).digest(nil), sum(object{}),
		sum(object{}, "a", "bc"), sum(object{}, "ab", "c"), sum(object{}, "a", "b", "c", ""), sum(object{}, "a", "", "b", "c"),
		sum(object{}, "", ""), (&object{}).digest(&body{content: [32]byte{1}}),
	} {
		if j, ok := seen[d]; ok {
			t.Errorf("objects %d and %d have one digest", j, i)
		}
		seen[d] = i
	}
}

// mapIndex trusts everything.
type mapIndex struct {
	mu                       sync.Mutex
	m                        map[FileID][32]byte
	hits, misses, remembered int
}

func (x *mapIndex) Lookup(id FileID) ([32]byte, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	d, ok := x.m[id]
	if ok {
		x.hits++
	} else {
		x.misses++
	}
	return d, ok
}

func (x *mapIndex) Remember(id FileID, d [32]byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m == nil {
		x.m = map[FileID][32]byte{}
	}
	x.m[id] = d
	x.remembered++
}

func TestDigestsIndex(t *testing.T) {
	t.Parallel()
	r, dir := makeRoot(t, "/d/a file \"1\"\n/d/b file \"2\" user.x=\"y\"\n/d/c file 300000 bytes\n/d/e file \"4\"\n/d/h hard /d/e", false)
	plain := digestsIn(t, r, DigestOptions{}, "d")
	x := &mapIndex{}
	for round := range 2 {
		if got := digestsIn(t, r, DigestOptions{Index: x}, "d"); !slices.Equal(got, plain) {
			t.Errorf("round %d: digests differ with an index", round)
		}
	}
	// b has an attribute and is never remembered; e is read once for h, which
	// may find it remembered in the first round.
	if x.remembered != 3 || x.hits < 4 || x.hits > 5 {
		t.Errorf("remembered %d, hits %d", x.remembered, x.hits)
	}
	// A setxattr changes ctime, so that the index misses.
	time.Sleep(20 * time.Millisecond)
	fstree.Make(t, dir, "/d/a file \"1\" user.x=\"new\"")
	if got := digestsIn(t, r, DigestOptions{Index: x}, "d"); slices.Equal(got, plain) {
		t.Error("a new attribute is not seen with an index")
	}
}

func TestDigestsUnreadable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	r, _ := makeRoot(t, "/d/f file 0000 \"x\"", false)
	sel, err := r.Select(context.Background(), Select{Patterns: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sel.Digests(context.Background(), DigestOptions{}); err == nil || !strings.Contains(err.Error(), "open d/f: permission denied") {
		t.Errorf("error is %v", err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	r, _ := makeRoot(t, "/a1 file \"\"\n/a0 link -> b\n/b dir 0700", false)
	sel, err := r.Select(context.Background(), Select{Patterns: []string{"b", "a*"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sel.Sources() {
		got = append(got, s.Path+" "+s.Info.Mode.String())
	}
	if want := []string{"b drwx------", "a0 drwx------", "a1 -rw-r--r--"}; !slices.Equal(got, want) {
		t.Errorf("sources are %q, want %q", got, want)
	}
}

func FuzzSelect(f *testing.F) {
	for _, p := range append(escapePaths, "*", "d/*", "[", "[a-", "\\", "a\\*", "**", "**/f", "!x", "./d/./f", "/./", "[^a]*", "?") {
		f.Add(p, "*.txt", false)
		f.Add("d", p, true)
	}
	r, _ := makeRoot(f, "/d/f file \"x\"\n/d/s/f.txt file \"y\"\n/l link -> ..\n/a[b file \"\"", false)
	f.Fuzz(func(t *testing.T, pattern, exclude string, parents bool) {
		for _, walk := range []bool{false, true} {
			r := &Root{dir: r.dir, walk: walk}
			sel, err := r.Select(context.Background(), Select{Patterns: []string{pattern}, Exclude: []string{exclude}, Parents: parents})
			if err != nil {
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("error of several lines: %q", err)
				}
				continue
			}
			if _, err := sel.Digests(context.Background(), DigestOptions{}); err != nil {
				t.Errorf("%q: %v", pattern, err)
			}
		}
	})
}
