package cache

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestDigestIsInjective(t *testing.T) {
	t.Parallel()
	keys := map[string]*Key{
		"empty":             {},
		"one empty part":    key("", ""),
		"two empty parts":   key("", "", "", ""),
		"a b":               key("a", "b"),
		"ab ''":             key("ab", ""),
		"'' ab":             key("", "ab"),
		"a b c d":           key("a", "b", "c", "d"),
		"c d a b":           key("c", "d", "a", "b"),
		"a bcd":             key("a", "bcd"),
		"length as text":    key("a", "\x01b\x01c\x01d"),
		"length in name":    key("a\x01b\x01c", "d"),
		"nul":               key("a", "b\x00"),
		"long":              key("a", strings.Repeat("x", 100_000)),
		"long, split":       key("a", strings.Repeat("x", 50_000), strings.Repeat("x", 50_000), ""),
		"buffer's size":     key("a", strings.Repeat("x", 4<<10)),
		"buffer's size, +1": key("a", strings.Repeat("x", 4<<10+1)),
	}
	seen := map[string]string{}
	for name, k := range keys {
		d := k.Digest()
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if other, dup := seen[d.String()]; dup {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d.String()] = name
	}
}

// The stream must not depend on where the hash's buffer happens to be full.
func TestDigestAcrossBuffers(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		k := &Key{}
		for range rng.IntN(40) {
			k.Add(strings.Repeat("n", rng.IntN(20)), strings.Repeat("v", rng.IntN(40<<10)))
		}
		got := k.id()
		h := newFieldHash(keyDomain)
		h.buf = make([]byte, 0, 1<<10)
		h.buf = append(h.buf, keyDomain...)
		for _, p := range k.Parts() {
			h.field(p.Name)
			h.field(p.Value)
		}
		if got != h.sum() {
			t.Fatal("the digest depends on the size of a buffer")
		}
	}
}

// A digest that changed with a release would make all records of all users
// miss: whoever changes it on purpose changes keyDomain.
func TestDigestIsStable(t *testing.T) {
	t.Parallel()
	const want = "sha256:b1c8884de7a12242a98bd6fb6c7ce7679b73dc0c043fe7201ab3dd6c910faf80"
	if got := key("parent", "x", "instruction", "RUN true").Digest().String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDigestFollowsAdd(t *testing.T) {
	t.Parallel()
	k := key("a", "b")
	first := k.Digest()
	if k.Digest() != first {
		t.Error("two digests of one key differ")
	}
	k.Add("c", "d")
	if k.Digest() == first {
		t.Error("an added part did not change the digest")
	}
	if k.Digest() != key("a", "b", "c", "d").Digest() {
		t.Error("the digest depends on when it was asked for")
	}
}

func TestAddFiles(t *testing.T) {
	t.Parallel()
	files := manyFiles(50)
	k, want := key("parent", "x"), key("parent", "x")
	k.AddFiles(PartFile, files)
	k.AddFiles(PartFile, fileList(nil))
	for _, f := range files {
		want.Add("file "+f.path, "sha256:"+hex.EncodeToString(f.sum[:]))
	}
	if !slices.Equal(k.Parts(), want.Parts()) {
		t.Error("AddFiles and Add give different parts")
	}
	// Nor must it matter for digests and records.
	long := fileList{{strings.Repeat("long/", 3000), sumOf("x")}}
	k.AddFiles("mount 1 file ", long)
	k.Append(key("a", "b"))
	want.Add("mount 1 file "+long[0].path, "sha256:"+hex.EncodeToString(long[0].sum[:]))
	want.Add("a", "b")
	if k.Digest() != want.Digest() {
		t.Error("AddFiles and Add give different digests")
	}
	r := Result{Note: "n"}
	if !bytes.Equal(encodeRecord(t, k, r), encodeRecord(t, want, r)) {
		t.Error("AddFiles and Add give different records")
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	k := key("a", "b")
	_ = k.Digest()
	c := k.Clone()
	c.Add("c", "d")
	k.Add("e", "f")
	if !slices.Equal(c.Parts(), key("a", "b", "c", "d").Parts()) || !slices.Equal(k.Parts(), key("a", "b", "e", "f").Parts()) {
		t.Errorf("a clone shares its parts: %v, %v", k.Parts(), c.Parts())
	}
	if c.Digest() == k.Digest() {
		t.Error("a clone shares its digest")
	}
}
