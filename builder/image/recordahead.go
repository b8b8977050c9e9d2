package image

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stratabuild/strata/builder/store"
	"go.podman.io/storage"
)

// aheadStore is a store that can be killed at any moment. The library records
// an image first and writes its manifest and config afterwards, and podman
// refuses to list any image while it finds one without a manifest: so the
// files are there before the record is.
type aheadStore struct {
	recorder
	st *store.Store
}

func ahead(st *store.Store) recorder { return aheadStore{st.Raw(), st} }

func (a aheadStore) CreateImage(id string, names []string, layer, metadata string, o *storage.ImageOptions) (*storage.Image, error) {
	undo := a.writeAhead(id, o.BigData)
	img, err := a.recorder.CreateImage(id, names, layer, metadata, o)
	if err != nil {
		undo()
	}
	return img, err
}

// writeAhead writes the files that the library is about to write. Should that
// fail, the library will too, and say why.
func (a aheadStore) writeAhead(id string, items []storage.ImageBigDataOption) (undo func()) {
	raw := a.st.Raw()
	root := raw.ImageStore()
	if root == "" {
		root = raw.GraphRoot()
	}
	dir := filepath.Join(root, raw.GraphDriverName()+"-images", id)
	made := os.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return func() {}
	}
	for _, item := range items {
		// Linked, so that a file is whole or absent, and one of an image that
		// somebody else has just recorded stays.
		_ = linkNew(filepath.Join(dir, store.BigDataFile(item.Key)), item.Data)
	}
	return func() {
		if _, err := raw.Image(id); made == nil && errors.Is(err, storage.ErrImageUnknown) {
			_ = os.RemoveAll(dir)
		}
	}
}

// linkNew makes a file with its content, by way of another beside it, which
// goes with the image if it is left.
func linkNew(path string, data []byte) error {
	var b [8]byte
	_, _ = rand.Read(b[:])
	name := filepath.Join(filepath.Dir(path), ".new-"+hex.EncodeToString(b[:]))
	err := os.WriteFile(name, data, 0o600)
	if err == nil {
		err = os.Link(name, path)
	}
	return errors.Join(err, os.Remove(name))
}
