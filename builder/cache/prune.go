package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// PruneOptions says what to remove; the zero value removes records whose
// layer is gone and layers that only the cache holds and no build has used.
type PruneOptions struct {
	// OlderThan keeps what was used within it; 0 keeps nothing.
	OlderThan time.Duration
	// KeepBytes keeps the most recently used layers up to that size.
	KeepBytes int64
	DryRun    bool
}

// Pruned counts what was removed.
type Pruned struct {
	Records int
	Layers  []define.LayerID
	Bytes   int64
}

// Prune removes records, and the layers that only they held. Layers of
// images, of containers and of running builds stay, and so do the records of
// all layers that stay. What either option keeps is kept.
//
// A running build is known by its pins, and by the lock that a Cache holds
// from its first Lookup until Close: while others hold it, nothing is removed
// that was used since the first of them came, or within a day, whichever is
// later. A build that starts during a Prune waits for it.
func (c *Cache) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	base, err := c.dir()
	if err != nil {
		return Pruned{}, err
	}
	if err := c.Close(); err != nil { // this process's own use
		return Pruned{}, err
	}
	p := pruning{c: c, base: base, o: o, now: c.now()}
	if o.OlderThan > 0 {
		p.keepFrom = p.now.Add(-o.OlderThan)
	}
	lock, err := openLock(base)
	if err != nil {
		return Pruned{}, fmt.Errorf("build cache: prune: %w", err)
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		fi, err := lock.Stat()
		if err != nil {
			return Pruned{}, fmt.Errorf("build cache: prune: %w", err)
		}
		// Times of use are late by up to touchEvery.
		p.busyFrom = fi.ModTime().Add(-touchEvery - time.Second)
		if day := p.now.Add(-24 * time.Hour); p.busyFrom.Before(day) {
			p.busyFrom = day
		}
	}
	if err := p.scan(ctx); err != nil {
		return Pruned{}, fmt.Errorf("build cache: prune: %w", err)
	}
	p.choose()
	err = p.remove(ctx)
	if err == nil && !o.DryRun {
		err = p.sweep()
	}
	if err != nil {
		err = fmt.Errorf("build cache: prune: %w", err)
	}
	return p.done, err
}

// pruning is one run of Prune.
type pruning struct {
	c        *Cache
	base     string
	o        PruneOptions
	now      time.Time
	keepFrom time.Time // zero: nothing is kept for its time
	busyFrom time.Time // zero: no build is running

	records []entry
	orphans []entry
	layers  map[string]*held
	oldest  time.Time // time of use of the oldest layer kept for its size
	done    Pruned
}

// unclaimedAge is how old a layer is that no image, container or record
// names, when it is taken for a leftover: what makes images gives them to
// somebody within minutes. containers/storage's own Repair waits as long.
const unclaimedAge = 24 * time.Hour

// held is a layer of the store.
type held struct {
	created    time.Time
	nameless   bool
	id, parent string
	children   int
	size       int64
	used       time.Time // zero: the cache does not know it
	taken      bool      // by an image or a container, or read-only
	keep       bool
	gone       bool
}

// scan reads the records and the state of the store.
func (p *pruning) scan(ctx context.Context) error {
	var err error
	if p.records, err = scanRecords(ctx, p.base); err != nil {
		return err
	}
	if p.orphans, err = scanOrphans(p.base); err != nil {
		return err
	}
	if p.layers, err = p.c.heldLayers(); err != nil {
		return err
	}
	for _, l := range p.layers {
		// Nobody's: its process was killed before it had said whose it is.
		if l.nameless && !l.created.IsZero() && l.created.Before(p.now.Add(-unclaimedAge)) {
			l.used = l.created
		}
	}
	for _, e := range slices.Concat(p.records, p.orphans) {
		if l := p.layers[e.layer]; l != nil {
			if e.used.After(l.used) {
				l.used = e.used
			}
			if l.size <= 0 {
				l.size = e.size
			}
		}
	}
	return nil
}

// heldLayers lists the layers of the store and who uses them.
func (c *Cache) heldLayers() (map[string]*held, error) {
	layers, err := c.layers.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	m := make(map[string]*held, len(layers))
	for i := range layers {
		l := &layers[i]
		m[l.ID] = &held{id: l.ID, parent: l.Parent, size: max(0, l.UncompressedSize), taken: l.ReadOnly,
			created: l.Created, nameless: len(l.Names) == 0}
	}
	for _, l := range m {
		if parent := m[l.parent]; parent != nil {
			parent.children++
		}
	}
	take := func(id string) {
		if l := m[id]; l != nil {
			l.taken = true
		}
	}
	images, err := c.layers.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	for i := range images {
		take(images[i].TopLayer)
		for _, id := range images[i].MappedTopLayers {
			take(id)
		}
	}
	containers, err := c.layers.Containers()
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for i := range containers {
		take(containers[i].LayerID)
	}
	return m, nil
}

// choose marks the layers that the options keep.
func (p *pruning) choose() {
	var known []*held
	for _, l := range p.layers {
		if l.used.IsZero() || l.taken {
			l.keep = true
			continue
		}
		l.keep = p.recent(l.used)
		known = append(known, l)
	}
	if p.o.KeepBytes <= 0 {
		return
	}
	slices.SortFunc(known, func(a, b *held) int {
		return cmp.Or(b.used.Compare(a.used), cmp.Compare(a.id, b.id))
	})
	var sum int64
	counted := make(map[string]bool)
	for _, l := range known {
		// A layer keeps those below it, which then count as well.
		var need []*held
		size := sum
		for b := l; b != nil && !b.taken && !b.used.IsZero() && !counted[b.id]; b = p.layers[b.parent] {
			need = append(need, b)
			size += b.size
		}
		if size > p.o.KeepBytes {
			return
		}
		sum, p.oldest = size, l.used
		for _, b := range need {
			b.keep, counted[b.id] = true, true
		}
	}
}

// recent reports whether something used then is kept for that.
func (p *pruning) recent(used time.Time) bool {
	return !p.keepFrom.IsZero() && !used.Before(p.keepFrom) ||
		!p.busyFrom.IsZero() && !used.Before(p.busyFrom)
}

// remove deletes layers from the leaves down, then the records and notes of
// layers that are gone.
func (p *pruning) remove(ctx context.Context) error {
	var leaves []*held
	for _, l := range p.layers {
		if !l.keep && l.children == 0 {
			leaves = append(leaves, l)
		}
	}
	slices.SortFunc(leaves, func(a, b *held) int { return cmp.Compare(a.id, b.id) })
	var failed error
	for len(leaves) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(failed, err)
		}
		l := leaves[len(leaves)-1]
		leaves = leaves[:len(leaves)-1]
		if err := p.deleteLayer(l); err != nil {
			failed = errors.Join(failed, err)
		}
		if parent := p.layers[l.parent]; l.gone && parent != nil {
			if parent.children--; parent.children == 0 && !parent.keep {
				leaves = append(leaves, parent)
			}
		}
	}
	return errors.Join(failed, p.removeRecords())
}

func (p *pruning) deleteLayer(l *held) error {
	if !p.o.DryRun {
		err := p.c.layers.DeleteLayer(l.id)
		switch {
		case errors.Is(err, storage.ErrLayerHasChildren), errors.Is(err, storage.ErrLayerUsedByImage),
			errors.Is(err, storage.ErrLayerUsedByContainer):
			return nil // somebody has come to use it
		case errors.Is(err, storage.ErrLayerUnknown), errors.Is(err, storage.ErrNotALayer):
			l.gone = true // somebody else removed it
			return nil
		case err != nil:
			return fmt.Errorf("remove layer %s: %w", l.id, err)
		}
	}
	l.gone = true
	p.done.Layers = append(p.done.Layers, define.LayerID(l.id))
	p.done.Bytes += l.size
	return nil
}

func (p *pruning) removeRecords() error {
	var failed error
	for i := range p.records {
		e := &p.records[i]
		if !p.useless(e) {
			continue
		}
		if !p.o.DryRun {
			// A build may have saved a new record here since the scan.
			if now, err := readEntry(e.path, e.id); err == nil && now.layer != e.layer {
				continue
			}
			if err := unlink(e.path); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		p.done.Records++
	}
	for _, e := range p.orphans {
		if l := p.layers[e.layer]; (l == nil || l.gone) && !p.o.DryRun {
			failed = errors.Join(failed, unlink(e.path))
		}
	}
	return failed
}

// useless reports whether a record can go.
func (p *pruning) useless(e *entry) bool {
	if e.damaged {
		return true
	}
	if e.layer != "" {
		l := p.layers[e.layer]
		return l == nil || l.gone
	}
	if p.recent(e.used) {
		return false
	}
	return p.oldest.IsZero() || e.used.Before(p.oldest)
}
