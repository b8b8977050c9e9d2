package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// Explanation is the reason for a miss.
type Explanation struct {
	// Part is the name of the first part that differs, "" when there is
	// nothing to compare with or the layer was removed from the store.
	Part     string
	Was, Now string // values, "" when absent
	// Text is the reason as one line for a person.
	Text string
}

// Explain says, in one line and as fields, why the key is not in the cache:
// the first part that differs from the slot's latest key, or from the nearest
// key of the same instruction, or that there is no earlier build. To be
// asked before Save.
func (c *Cache) Explain(ctx context.Context, s Slot, k *Key) (Explanation, error) {
	if err := ctx.Err(); err != nil {
		return Explanation{}, err
	}
	base, err := c.dir()
	if err != nil {
		return Explanation{}, err
	}
	id := k.id()
	rec, err := openRecord(recordPath(base, id), id)
	if err == nil {
		there, err := c.hasLayer(rec.result.Layer)
		rec.close()
		switch {
		case err != nil:
			return Explanation{}, err
		case there:
			return Explanation{Text: "the cache has this step and was not asked for it"}, nil
		}
		return Explanation{Text: "the cached layer was removed from the store"}, nil
	}
	if !errors.Is(err, errNoRecord) {
		return Explanation{}, fmt.Errorf("build cache: explain %x: %w", id[:6], err)
	}
	near, err := c.nearest(base, s, k)
	switch {
	case err != nil:
		return Explanation{}, err
	case near == nil:
		return Explanation{Text: "no earlier build of this step"}, nil
	case near.id == id:
		return Explanation{Text: "the record of the earlier build was removed from the cache"}, nil
	}
	e := explain(s, near.parts, k.Parts(), near.whole)
	if near.foreign {
		e.Text += " (compared with another build)"
	}
	return e, nil
}

// neighbour is the record that a missing key is compared with.
type neighbour struct {
	id      [32]byte
	parts   []Part
	whole   bool
	foreign bool // of another build
}

// nearest finds it: the latest key of the same place when its text is the
// same, else the latest with the same text in this build,
// else the latest of the same place whatever its text, else the latest with
// the same text in any build. nil when there is none that can be read.
func (c *Cache) nearest(base string, s Slot, k *Key) (*neighbour, error) {
	text := k.text()
	slots, err := c.readLog(buildLogPath(base, s))
	if err != nil {
		return nil, fmt.Errorf("build cache: %w", err)
	}
	place, err := loadNeighbour(base, slots, placeSlot(s), k)
	if err != nil {
		return nil, err
	}
	if place != nil && place.id == k.id() {
		return place, nil
	}
	if place != nil {
		old := ""
		for i := range place.parts {
			old = addText(old, &place.parts[i])
		}
		if old == text {
			return place, nil
		}
	}
	if text != "" {
		if n, err := loadNeighbour(base, slots, textSlot(text), k); n != nil || err != nil {
			return n, err
		}
	}
	if place != nil || text == "" {
		return place, nil
	}
	if slots, err = c.readLog(anyLogPath(base)); err != nil {
		return nil, fmt.Errorf("build cache: %w", err)
	}
	n, err := loadNeighbour(base, slots, anySlot(s, text), k)
	if n != nil {
		n.foreign = true
	}
	return n, err
}

func loadNeighbour(base string, slots map[slotID][32]byte, slot slotID, k *Key) (*neighbour, error) {
	id, ok := slots[slot]
	if !ok {
		return nil, nil
	}
	if id == k.id() { // its record is gone, or there would be a hit
		return &neighbour{id: id}, nil
	}
	rec, err := openRecord(recordPath(base, id), id)
	if err == nil {
		defer rec.close()
		n := &neighbour{id: id}
		if n.parts, n.whole, err = rec.readParts(); err == nil {
			return n, nil
		}
	}
	if errors.Is(err, errNoRecord) {
		return nil, nil
	}
	return nil, fmt.Errorf("build cache: read the record of an earlier build: %w", err)
}

// explain compares two different lists of parts.
func explain(s Slot, was, now []Part, whole bool) Explanation {
	d := firstDifference(was, now)
	if d.kind == same {
		// Equal as far as it was kept; the digests differ, so the rest does.
		if whole {
			return Explanation{Text: "the record of the earlier build is damaged"}
		}
		return Explanation{Text: fmt.Sprintf("something after the first %d parts of the key changed", len(was))}
	}
	if d.kind == added && !whole && d.at == len(was) {
		return Explanation{Text: fmt.Sprintf("something after the first %d parts of the key changed", len(was))}
	}
	e := Explanation{Part: d.name, Was: d.was, Now: d.now, Text: d.text(s)}
	more := d.others
	if d.kind == changed && (d.name == PartParent || d.name == PartBase) && more > 0 {
		// A new parent explains a miss, and yet it may not be the one thing
		// that the user did.
		next := firstDifference(was[d.at+1:], now[d.at+1:])
		if next.kind != same {
			e.Text += "; " + next.text(s)
			more = next.others
		}
	}
	if more > 0 {
		e.Text += fmt.Sprintf(" (and %d more)", more)
	}
	return e
}

type differenceKind int

const (
	same differenceKind = iota
	changed
	added
	removed
	moved
)

// difference is the first one between two lists of parts.
type difference struct {
	kind     differenceKind
	at       int // index in both lists
	name     string
	was, now string
	others   int // how many further names differ
}

func firstDifference(was, now []Part) difference {
	i := 0
	for i < len(was) && i < len(now) && was[i] == now[i] {
		i++
	}
	if i == len(was) && i == len(now) {
		return difference{}
	}
	d := difference{at: i}
	old, cur := byName(was[i:]), byName(now[i:])
	d.others = countDifferent(old, cur)
	switch {
	case i < len(was) && i < len(now) && was[i].Name == now[i].Name:
		d.kind, d.name, d.was, d.now = changed, now[i].Name, was[i].Value, now[i].Value
	case i < len(now) && !has(old, now[i].Name):
		d.kind, d.name, d.now = added, now[i].Name, now[i].Value
	case i < len(was) && !has(cur, was[i].Name):
		d.kind, d.name, d.was = removed, was[i].Name, was[i].Value
	case i < len(was) && i < len(now):
		d.kind, d.name, d.was, d.now = moved, now[i].Name, old[now[i].Name], now[i].Value
	case i < len(now): // a name once more
		d.kind, d.name, d.now = added, now[i].Name, now[i].Value
	default:
		d.kind, d.name, d.was = removed, was[i].Name, was[i].Value
	}
	d.others = max(0, d.others-1)
	return d
}

func byName(parts []Part) map[string]string {
	m := make(map[string]string, len(parts))
	for i := range parts {
		if !has(m, parts[i].Name) {
			m[parts[i].Name] = parts[i].Value
		}
	}
	return m
}

func has(m map[string]string, name string) bool { _, ok := m[name]; return ok }

func countDifferent(was, now map[string]string) int {
	n := 0
	for name, v := range now {
		if old, ok := was[name]; !ok || old != v {
			n++
		}
	}
	for name := range was {
		if !has(now, name) {
			n++
		}
	}
	return n
}

// text is the difference as a clause.
func (d difference) text(s Slot) string {
	name := printable(d.name)
	if strings.HasPrefix(d.name, PartFile) {
		name = PartFile + printable(strings.TrimPrefix(d.name, PartFile))
	}
	switch d.kind {
	case added:
		return name + " was added"
	case removed:
		return name + " was removed"
	case moved:
		return name + " is at another place in the order"
	}
	switch {
	case d.name == PartBase:
		return fmt.Sprintf("the parent changed: base image digest %s was %s", short(d.now), short(d.was))
	case d.name == PartParent:
		return fmt.Sprintf("the parent changed: %s was %s", short(d.now), short(d.was))
	case d.name == PartInstruction, d.name == PartCommand, d.name == PartDestination:
		return fmt.Sprintf("the %s was %s, is now %s", d.name, quote(d.was), quote(d.now))
	case strings.HasPrefix(d.name, PartFile), isDigest(d.was) && isDigest(d.now):
		return name + " changed"
	}
	return fmt.Sprintf("%s was %s, is now %s", name, quote(d.was), quote(d.now))
}

// printable returns s as it is where that is one harmless line, else quoted:
// names come from contexts, and a terminal obeys what it is shown.
func printable(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.Quote(s)
		}
	}
	return s
}

const maxQuoted = 80 // of a value in a Text, in runes

func quote(s string) string {
	if runes := []rune(s[:min(len(s), 4*maxQuoted)]); len(runes) > maxQuoted {
		return strconv.Quote(string(runes[:maxQuoted])) + "…"
	}
	return strconv.Quote(s)
}

func isDigest(s string) bool {
	return validLayerID(s) || digest.Digest(s).Validate() == nil
}

// short abbreviates a digest or ID.
func short(s string) string {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok {
		algorithm, hex = "", s
	} else {
		algorithm += ":"
	}
	if isDigest(s) && len(hex) > 12 {
		return algorithm + hex[:12] + "…"
	}
	if s == "" {
		return "none"
	}
	return quote(s)
}
