package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"
	"go.podman.io/storage/pkg/ioutils"
	"go.podman.io/storage/pkg/lockfile"
	"golang.org/x/sys/unix"
)

// The storage library keeps the records of all layers in one file, which it
// writes three times for each new layer, and syncs each time: with 20,000
// layers in the store, that is 150 ms of processor time a step. Adopt makes
// several layers with two writings, and leaves the records that are there as
// the bytes that they are. What it writes, in which order and under which lock
// is the library's: first the records, marked incomplete, then the
// directories, then the records as they stay. Whoever finds an incomplete one,
// of whatever tool, removes the layer.

// Staged is a directory that is to be a layer.
type Staged struct {
	ID, Parent define.LayerID
	// Dir is the directory and Split the file with its compressed tar-split
	// record, on the store's file system. Both are renamed.
	Dir, Split string
	DiffID     digest.Digest
	Size       int64 // of the tar stream
	UIDs, GIDs []uint32
	Mode       os.FileMode // of the layer's root

	// Found: the store has the layer already; nothing was moved.
	Found bool
	// Err is why the layer is not in the store.
	Err error
}

// AdoptsTogether reports whether Adopt works in this store: one whose records
// are in a single place that this process may write.
func (s *Store) AdoptsTogether() bool {
	s.togetherOnce.Do(func() { s.together = s.adoptsTogether() })
	return s.together
}

func (s *Store) adoptsTogether() bool {
	raw := s.raw
	if s.zeroCopy != "" || raw.GraphDriverName() != "overlay" || raw.ImageStore() != "" || raw.TransientStore() || len(raw.UIDMap()) > 0 || len(raw.GIDMap()) > 0 {
		return false
	}
	if furtherStores(raw.GraphOptions()) || slices.ContainsFunc(raw.GraphOptions(), func(o string) bool { return strings.HasSuffix(o, "use_composefs=true") }) {
		return false
	}
	driver, err := raw.GraphDriver()
	if err != nil || driver.SyncMode() != drivers.SyncModeNone {
		return false
	}
	_, ok := driver.(drivers.DriverWithDiffer)
	return ok
}

// Adopt takes directories into the store, parents before their children, and
// sets Found and Err of each. An error is about all of them: nothing was
// taken. The caller holds Lock.
func (s *Store) Adopt(layers []*Staged) error {
	driver, err := s.raw.GraphDriver()
	if err != nil {
		return fmt.Errorf("the store's driver: %w", err)
	}
	differ, ok := driver.(drivers.DriverWithDiffer)
	if !ok {
		return fmt.Errorf("taking layers into the store: its driver takes no directories: %w", define.ErrUnsupported)
	}
	dir := filepath.Join(s.raw.GraphRoot(), "overlay-layers")
	list, unlock, err := s.lockRecords()
	if err != nil {
		return fmt.Errorf("taking layers into the store: %w", Explain(dir, err))
	}
	defer unlock()
	var fresh []*Staged
	first := map[define.LayerID]*Staged{}
	for _, l := range layers {
		if l.Found = list.has(l.ID); l.Found || first[l.ID] != nil {
			continue
		}
		first[l.ID] = l
		fresh = append(fresh, l)
	}
	// Two steps that made the same: one directory becomes the layer, and the
	// other must not take its place, which somebody may be reading.
	defer func() {
		for _, l := range layers {
			if f := first[l.ID]; f != nil && f != l {
				l.Found, l.Err = f.Err == nil, f.Err
			}
		}
	}()
	if len(fresh) == 0 {
		return nil
	}
	records := make([]*storage.Layer, len(fresh))
	for i, l := range fresh {
		records[i] = l.record()
		records[i].Flags = map[string]any{"incomplete": true}
	}
	if err := list.write(records); err != nil {
		return fmt.Errorf("taking layers into the store: %w", Explain(dir, err))
	}
	a := adopting{driver: driver, differ: differ, dir: dir, list: list, bad: map[define.LayerID]error{}}
	keep := records[:0]
	for i, l := range fresh {
		if l.Err = a.one(l); l.Err == nil {
			records[i].Flags = nil
			keep = append(keep, records[i])
			continue
		}
		a.bad[l.ID] = l.Err
		if err := driver.Remove(string(l.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			keep = append(keep, records[i]) // incomplete: the next to come removes it
		}
	}
	if err := list.write(keep); err != nil {
		err = fmt.Errorf("taking layers into the store: %w", Explain(dir, err))
		for _, l := range fresh {
			l.Err = errors.Join(l.Err, err)
		}
	}
	return nil
}

func (l *Staged) record() *storage.Layer {
	return &storage.Layer{
		ID: string(l.ID), Parent: string(l.Parent), Created: time.Now().UTC(), UncompressedDigest: l.DiffID, UncompressedSize: l.Size,
		UIDs: l.UIDs, GIDs: l.GIDs, BigDataNames: []string{},
	}
}

// adopting is one call of Adopt.
type adopting struct {
	driver drivers.Driver
	differ drivers.DriverWithDiffer
	dir    string
	list   *records
	bad    map[define.LayerID]error // of layers that failed
}

func (a *adopting) one(l *Staged) error {
	if l.Parent != "" {
		if err := a.bad[l.Parent]; err != nil {
			return fmt.Errorf("the layer below: %w", err)
		}
		if !a.list.has(l.Parent) {
			return fmt.Errorf("layer %s: the layer below, %s, is no longer in the store: %w", l.ID, l.Parent, define.ErrNotFound)
		}
	}
	split := filepath.Join(a.dir, string(l.ID)+".tar-split.gz")
	err := a.driver.Create(string(l.ID), string(l.Parent), &drivers.CreateOpts{IDMappings: &idtools.IDMappings{}})
	if err == nil {
		err = moveFile(l.Split, split)
	}
	// Last: what has moved cannot be taken into the store in another way.
	if err == nil {
		err = a.differ.ApplyDiffFromStagingDirectory(string(l.ID), string(l.Parent), &drivers.DriverWithDifferOutput{
			Target: l.Dir, Size: l.Size, UncompressedDigest: l.DiffID, UIDs: l.UIDs, GIDs: l.GIDs, RootDirMode: &l.Mode,
		}, &drivers.ApplyDiffWithDifferOpts{})
		if err != nil {
			_ = os.Remove(split) // the next to make the layer replaces it
		}
	}
	if err != nil {
		return fmt.Errorf("taking layer %s into the store: %w", l.ID, Explain(a.dir, err))
	}
	return nil
}

// moveFile renames a file, or copies it: while a container is mounted, the
// driver's directory is a mount of its own.
func moveFile(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// records is the file of the layers' records, whose lock is held for writing.
type records struct {
	path     string
	lock     *lockfile.LockFile
	text     []byte // all records, up to the closing bracket
	volatile []byte // the file of those that are not synced
	more     []byte // what write wrote last
}

func openRecords(dir string, lock *lockfile.LockFile) (*records, error) {
	r := &records{path: filepath.Join(dir, "layers.json"), lock: lock}
	f, err := os.Open(r.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		// Room for what is added: the text is copied no more.
		b := bytes.NewBuffer(make([]byte, 0, info.Size()+64<<10))
		if _, err := io.Copy(b, f); err != nil {
			return nil, err
		}
		r.text = b.Bytes()
	}
	switch {
	case len(r.text) == 0, string(r.text) == "null", string(r.text) == "[]":
		r.text = append(r.text[:0], '[')
	case bytes.HasPrefix(r.text, []byte(`[{"id":"`)) && bytes.HasSuffix(r.text, []byte("}]")):
		r.text = r.text[:len(r.text)-1]
	default:
		return nil, fmt.Errorf("%s has not the form that the storage library writes: %w", r.path, define.ErrUnsupported)
	}
	r.volatile, err = os.ReadFile(filepath.Join(dir, "volatile-layers.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return r, nil
}

// has reports whether there is a record of the layer.
func (r *records) has(id define.LayerID) bool {
	return hasRecord(r.more, id) || hasRecord(r.text, id) || hasRecord(r.volatile, id)
}

func hasRecord(text []byte, id define.LayerID) bool { return recordAt(text, id) >= 0 }

// recordAt returns where `"id":"ID"` stands, or -1. It looks for a part of the
// ID that is short enough to be searched for with the processor's vector
// instructions, which bytes.Index does not do for the whole: a list may have
// many megabytes.
func recordAt(text []byte, id define.LayerID) int {
	const key = `"id":"`
	part := []byte(id)
	part = part[:min(24, len(part))]
	for at := 0; ; {
		i := bytes.Index(text[at:], part)
		if i < 0 || len(part) == 0 {
			return -1
		}
		i += at
		if bytes.HasSuffix(text[:i], []byte(key)) && bytes.HasPrefix(text[i:], []byte(id+`"`)) {
			return i - len(key)
		}
		at = i + 1
	}
}

// write replaces the file by what it was and the further records.
func (r *records) write(more []*storage.Layer) error {
	text := r.text
	for _, l := range more {
		b, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(text, b...)
	}
	r.more = text[len(r.text):]
	text = append(text, ']')
	// Before the file: a process that ends in between must not leave others
	// with what they have read.
	if _, err := r.lock.RecordWrite(); err != nil {
		return err
	}
	return ioutils.AtomicWriteFile(r.path, text, 0o600)
}
