package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// entry is a record, or the note of an orphan, as Prune sees it.
type entry struct {
	path    string
	id      [32]byte // of a record
	layer   string
	size    int64
	used    time.Time
	damaged bool
}

// scanRecords reads the header of every record.
func scanRecords(ctx context.Context, base string) ([]entry, error) {
	var entries []entry
	err := eachShard(filepath.Join(base, "records"), func(path, name string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var id [32]byte
		if _, err := hex.Decode(id[:], []byte(name)); err != nil || len(name) != 2*len(id) {
			entries = append(entries, entry{path: path, damaged: true})
			return nil
		}
		e, err := readEntry(path, id)
		if errors.Is(err, errNoRecord) {
			e, err = entry{path: path, id: id, damaged: true}, nil
		}
		if err != nil {
			return fmt.Errorf("read record %s: %w", path, err)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func readEntry(path string, id [32]byte) (entry, error) {
	e := entry{path: path, id: id}
	rec, err := openRecord(path, id)
	if err != nil {
		return e, err
	}
	defer rec.close()
	var st unix.Stat_t
	if err := unix.Fstat(rec.fd, &st); err != nil {
		return e, err
	}
	e.layer, e.size = string(rec.result.Layer), max(0, rec.result.Size)
	e.used = time.Unix(st.Mtim.Unix())
	return e, nil
}

func scanOrphans(base string) ([]entry, error) {
	var entries []entry
	err := eachFile(filepath.Join(base, "orphans"), func(path string, d fs.DirEntry) error {
		fi, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		entries = append(entries, entry{path: path, layer: d.Name(), used: fi.ModTime()})
		return nil
	})
	return entries, err
}

// eachShard calls f for each file of a sharded directory; name is the name of
// the shard and the file together.
func eachShard(dir string, f func(path, name string) error) error {
	return eachFile(dir, func(shard string, d fs.DirEntry) error {
		if !d.IsDir() {
			return nil
		}
		return eachFile(shard, func(path string, e fs.DirEntry) error { return f(path, d.Name()+e.Name()) })
	})
}

func eachFile(dir string, f func(path string, d fs.DirEntry) error) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, d := range list {
		if err := f(filepath.Join(dir, d.Name()), d); err != nil {
			return err
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func unlink(path string) error { return ignoreMissing(os.RemoveAll(path)) }

// staleTemp is when a file being written counts as left by a dead process.
const staleTemp = time.Hour

// sweep removes what serves no record any more: slots of removed records,
// indexes not used, and what dead processes were writing.
func (p *pruning) sweep() error {
	err := eachFile(filepath.Join(p.base, "slots"), func(path string, _ fs.DirEntry) error { return p.sweepSlots(path) })
	if err != nil {
		return err
	}
	err = eachFile(filepath.Join(p.base, "index"), func(path string, d fs.DirEntry) error {
		fi, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if p.o.KeepBytes > 0 || p.recent(fi.ModTime()) {
			return nil
		}
		return unlink(path)
	})
	if err != nil {
		return err
	}
	return eachFile(filepath.Join(p.base, "tmp"), func(path string, d fs.DirEntry) error {
		fi, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		if p.now.Sub(fi.ModTime()) < staleTemp {
			return nil
		}
		return unlink(path)
	})
}

// sweepSlots takes the slots of removed records out of a log.
func (p *pruning) sweepSlots(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return ignoreMissing(err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > 2*maxSlotLog {
		return unlink(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return ignoreMissing(err)
	}
	there := make(map[[32]byte]bool)
	kept := compactSlots(b, len(b), func(key [32]byte) bool {
		known, ok := there[key]
		if !ok {
			known = exists(recordPath(p.base, key))
			there[key] = known
		}
		return known
	})
	switch len(kept) {
	case len(b):
		return nil
	case 0:
		return unlink(path)
	}
	return writeFile(p.base, path, allOf(kept))
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Usage sums up what the cache holds: its records, and the layers in the
// store that they name, whether or not images share them, with the size of
// their uncompressed tar streams in bytes.
func (c *Cache) Usage(ctx context.Context) (records int, layers int, bytes int64, err error) {
	base, err := c.dir()
	if err != nil {
		return 0, 0, 0, err
	}
	entries, err := scanRecords(ctx, base)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("build cache: usage: %w", err)
	}
	orphans, err := scanOrphans(base)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("build cache: usage: %w", err)
	}
	list, err := c.layers.Layers()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("build cache: usage: list layers: %w", err)
	}
	sizes := make(map[string]int64, len(list))
	for i := range list {
		sizes[list[i].ID] = max(0, list[i].UncompressedSize)
	}
	counted := make(map[string]bool)
	for _, e := range append(entries, orphans...) {
		size, there := sizes[e.layer]
		if !there || counted[e.layer] {
			continue
		}
		counted[e.layer] = true
		if size == 0 {
			size = e.size
		}
		bytes += size
	}
	for _, e := range entries {
		if !e.damaged {
			records++
		}
	}
	return records, len(counted), bytes, nil
}
