package cache

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// A log that was cut short or damaged loses what was hit, and no more.
func TestSlotsDamaged(t *testing.T) {
	t.Parallel()
	var b []byte
	keys := map[slotID][32]byte{}
	for i := range 4 {
		slot := newSlotID("n", fmt.Sprint(i))
		keys[slot] = key("n", fmt.Sprint(i)).id()
		b = appendSlot(b, slot, keys[slot])
	}
	for i := range b {
		for what, bad := range map[string][]byte{
			"changed": append(append(append([]byte(nil), b[:i]...), b[i]^1), b[i+1:]...),
			"missing": append(append([]byte(nil), b[:i]...), b[i+1:]...),
		} {
			n := 0
			decodeSlots(bad, func(slot slotID, id [32]byte) {
				n++
				if keys[slot] != id {
					t.Errorf("byte %d %s: a wrong key", i, what)
				}
			})
			if n != 3 {
				t.Errorf("byte %d %s: %d entries, want 3", i, what, n)
			}
		}
	}
}

// Logs stay small, and the latest steps stay in them.
func TestSlotsCompact(t *testing.T) {
	t.Parallel()
	c, _, _ := newCache(t)
	base, _ := c.dir()
	const rounds = maxSlotLog/slotEntry/2*2 + 10
	k := func(i int) *Key { return key(PartInstruction, fmt.Sprint("RUN ", i%2000), "n", fmt.Sprint(i)) }
	at := func(i int) Slot { return Slot{Build: "b", N: i % 3} }
	for i := range rounds {
		if err := c.Seen(context.Background(), at(i), k(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{buildLogPath(base, at(0)), anyLogPath(base)} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Size() > maxSlotLog {
			t.Errorf("%s grew to %d bytes", p, fi.Size())
		}
	}
	slots, err := reopen(c).readLog(buildLogPath(base, at(0)))
	if err != nil {
		t.Fatal(err)
	}
	for i := rounds - 3; i < rounds; i++ {
		if slots[placeSlot(at(i))] != k(i).id() || slots[textSlot(k(i).text())] != k(i).id() {
			t.Errorf("round %d is not the latest", i)
		}
	}
	// What another process appends is seen.
	other := key("x", "y")
	if err := reopen(c).Seen(context.Background(), at(1), other); err != nil {
		t.Fatal(err)
	}
	if slots, err := c.readLog(buildLogPath(base, at(0))); err != nil || slots[placeSlot(at(1))] != other.id() {
		t.Errorf("another process's key is not seen: %v", err)
	}
}

func FuzzSlots(f *testing.F) {
	f.Add(appendSlot([]byte("damage"), slotID{1}, [32]byte{2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		yes := func([32]byte) bool { return true }
		once := compactSlots(b, len(b), yes)
		if len(once) > len(b) || len(once)%slotEntry != 0 {
			t.Fatalf("%d bytes became %d", len(b), len(once))
		}
		if twice := compactSlots(once, len(b), yes); string(twice) != string(once) {
			t.Fatal("not the same when done twice")
		}
	})
}
