package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/idtools"
	"go.podman.io/storage/pkg/lockfile"
	"go.podman.io/storage/pkg/stringid"
)

// Pin layers are made and removed with one writing of the library's list each
// where the library needs three, and no reading of all records (see Adopt).
// What is left by a process that ends in between is a record without a
// directory, under a name of a dead workspace's: Sweep removes it.

// createPin makes a layer with a name on top of parent ("": on nothing).
func (s *Store) createPin(parent define.LayerID, name string) (id string, err error) {
	byLibrary := func() (string, error) {
		l, err := s.raw.CreateLayer("", string(parent), []string{name}, "", true, nil)
		if err != nil {
			return "", err
		}
		return l.ID, nil
	}
	if !s.AdoptsTogether() {
		return byLibrary()
	}
	driver, err := s.raw.GraphDriver()
	if err != nil {
		return "", err
	}
	list, unlock, err := s.lockRecords()
	if errors.Is(err, define.ErrUnsupported) {
		return byLibrary()
	}
	if err != nil {
		return "", err
	}
	defer unlock()
	if parent != "" && !list.has(parent) {
		return "", storage.ErrLayerUnknown
	}
	id = stringid.GenerateRandomID()
	pin := &storage.Layer{ID: id, Parent: string(parent), Names: []string{name}, Created: time.Now().UTC(), BigDataNames: []string{}}
	if err := list.write([]*storage.Layer{pin}); err != nil {
		return "", err
	}
	if err := driver.CreateReadWrite(id, string(parent), &drivers.CreateOpts{IDMappings: &idtools.IDMappings{}}); err != nil {
		return "", errors.Join(err, driver.Remove(id), list.write(nil))
	}
	return id, nil
}

// deletePins removes layers that createPin made.
func (s *Store) deletePins(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	byLibrary := func() error {
		var errs []error
		for _, id := range ids {
			if err := s.raw.DeleteLayer(id); err != nil && !errors.Is(err, storage.ErrNotALayer) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if !s.AdoptsTogether() {
		return byLibrary()
	}
	driver, err := s.raw.GraphDriver()
	if err != nil {
		return err
	}
	list, unlock, err := s.lockRecords()
	if errors.Is(err, define.ErrUnsupported) {
		return byLibrary()
	}
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, id := range ids {
		if !list.has(define.LayerID(id)) {
			continue // somebody else has removed it
		}
		if err := driver.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, list.cut(define.LayerID(id)))
	}
	return errors.Join(append(errs, list.write(nil))...)
}

// lockRecords takes the library's lock of the records and reads them.
func (s *Store) lockRecords() (list *records, unlock func(), err error) {
	dir := filepath.Join(s.raw.GraphRoot(), "overlay-layers")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := lockfile.GetLockFile(filepath.Join(dir, "layers.lock"))
	if err != nil {
		return nil, nil, fmt.Errorf("locking the store's layers: %w", Explain(dir, err))
	}
	lock.Lock()
	if list, err = openRecords(dir, lock); err != nil {
		lock.Unlock()
		return nil, nil, err
	}
	return list, lock.Unlock, nil
}

// cut takes a record out of the list, of which write makes the file.
func (r *records) cut(id define.LayerID) error {
	start := recordAt(r.text, id) - 1
	if start < 0 || r.text[start] != '{' {
		return fmt.Errorf("the record of layer %s is not in %s: %w", id, r.path, define.ErrUnsupported)
	}
	d := json.NewDecoder(bytes.NewReader(r.text[start:]))
	var record storage.Layer
	if err := d.Decode(&record); err != nil || record.ID != string(id) {
		return fmt.Errorf("the record of layer %s in %s is damaged: %w", id, r.path, errors.Join(err, define.ErrInvalid))
	}
	end := start + int(d.InputOffset())
	switch {
	case end < len(r.text) && r.text[end] == ',':
		end++
	case start > 1 && r.text[start-1] == ',':
		start--
	}
	r.text = slices.Delete(r.text, start, end)
	return nil
}
