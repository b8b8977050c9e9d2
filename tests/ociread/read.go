package ociread

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Image is an image of a layout, verified.
type Image struct {
	Manifest Manifest
	// Config is the config's JSON object.
	Config map[string]any
	// Tree maps absolute paths to what lies there once all layers are applied.
	Tree map[string]Entry
	// Layers are the members of each layer in stream order.
	Layers [][]Entry
	// DiffIDs are the digests of the uncompressed layers, as computed.
	DiffIDs []string
}

// Manifest is the part of an image manifest that readers look at.
type Manifest struct {
	MediaType   string            `json:"mediaType"`
	Config      Descriptor        `json:"config"`
	Layers      []Descriptor      `json:"layers"`
	Annotations map[string]string `json:"annotations"`
}

// Descriptor names a blob.
type Descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// Entry is one object of a tree.
type Entry struct {
	Path   string
	Header tar.Header
	Data   []byte
}

// Read reads the only image of the layout at dir.
func Read(dir string) (*Image, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("index.json lists %d images, want 1", len(index.Manifests))
	}
	img := &Image{Tree: map[string]Entry{}}
	blob, err := readBlob(dir, index.Manifests[0])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(blob, &img.Manifest); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if blob, err = readBlob(dir, img.Manifest.Config); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(blob, &img.Config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	for _, d := range img.Manifest.Layers {
		if blob, err = readBlob(dir, d); err != nil {
			return nil, err
		}
		if err := img.apply(d, blob); err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
	}
	return img, img.checkConfig()
}

func readBlob(dir string, d Descriptor) ([]byte, error) {
	algorithm, sum, _ := strings.Cut(d.Digest, ":")
	data, err := os.ReadFile(filepath.Join(dir, "blobs", algorithm, sum))
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("blob %s: content has digest %x", d.Digest, got)
	}
	if int64(len(data)) != d.Size {
		return nil, fmt.Errorf("blob %s: %d bytes, descriptor says %d", d.Digest, len(data), d.Size)
	}
	return data, nil
}

func decompress(mediaType string, blob []byte) ([]byte, error) {
	switch {
	case strings.HasSuffix(mediaType, "+gzip"), strings.HasSuffix(mediaType, ".gzip"):
		r, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case strings.HasSuffix(mediaType, "+zstd"):
		r, err := zstd.NewReader(bytes.NewReader(blob))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	return blob, nil
}

func (img *Image) apply(d Descriptor, blob []byte) error {
	plain, err := decompress(d.MediaType, blob)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(plain)
	img.DiffIDs = append(img.DiffIDs, "sha256:"+hex.EncodeToString(sum[:]))
	var members []Entry
	tr := tar.NewReader(bytes.NewReader(plain))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		members = append(members, Entry{Path: path.Clean("/" + h.Name), Header: *h, Data: data})
	}
	img.Layers = append(img.Layers, members)
	return img.merge(members)
}

// merge applies one layer: whiteouts act on the layers below only.
func (img *Image) merge(members []Entry) error {
	lower := img.Tree
	img.Tree = map[string]Entry{}
	gone, emptied := map[string]bool{}, map[string]bool{}
	for _, m := range members {
		dir, base := path.Split(m.Path)
		old, below := lower[m.Path]
		switch {
		case base == ".wh..wh..opq":
			emptied[path.Clean(dir)] = true
		case strings.HasPrefix(base, ".wh."):
			target := path.Join(dir, strings.TrimPrefix(base, ".wh."))
			gone[target], emptied[target] = true, true
		case m.Header.Typeflag != tar.TypeDir, below && old.Header.Typeflag != tar.TypeDir:
			gone[m.Path], emptied[m.Path] = true, true
		}
	}
	hidden := func(p string) bool {
		if gone[p] {
			return true
		}
		for d := p; d != "/"; {
			d = path.Dir(d)
			if emptied[d] {
				return true
			}
		}
		return false
	}
	for p, e := range lower {
		if !hidden(p) {
			img.Tree[p] = e
		}
	}
	for _, m := range members {
		if strings.HasPrefix(path.Base(m.Path), ".wh.") {
			continue
		}
		if m.Header.Typeflag == tar.TypeLink {
			target, ok := img.Tree[path.Clean("/"+m.Header.Linkname)]
			if !ok {
				return fmt.Errorf("%s: hard link to %s, which is not there", m.Path, m.Header.Linkname)
			}
			m.Data, m.Header.Size = target.Data, target.Header.Size
		}
		img.Tree[m.Path] = m
	}
	return nil
}

// checkConfig compares the config's diff IDs and history with the layers.
func (img *Image) checkConfig() error {
	rootfs, _ := img.Config["rootfs"].(map[string]any)
	ids, _ := rootfs["diff_ids"].([]any)
	if len(ids) != len(img.DiffIDs) {
		return fmt.Errorf("config lists %d diff IDs for %d layers", len(ids), len(img.DiffIDs))
	}
	for i, id := range ids {
		if id != img.DiffIDs[i] {
			return fmt.Errorf("layer %d: diff ID is %s, config says %v", i, img.DiffIDs[i], id)
		}
	}
	history, _ := img.Config["history"].([]any)
	layers := 0
	for _, e := range history {
		if entry, _ := e.(map[string]any); entry["empty_layer"] != true {
			layers++
		}
	}
	if len(history) > 0 && layers != len(ids) {
		return fmt.Errorf("history tells of %d layers, there are %d", layers, len(ids))
	}
	return nil
}

// Dump writes one line a path, sorted: path, type, mode, owner, and the
// content's size, the link's target or the device's numbers.
func (img *Image) Dump() string {
	paths := make([]string, 0, len(img.Tree))
	for p := range img.Tree {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	var b strings.Builder
	for _, p := range paths {
		b.WriteString(img.Tree[p].String() + "\n")
	}
	return b.String()
}

// String is the entry's line in Dump.
func (e Entry) String() string {
	h := e.Header
	line := fmt.Sprintf("%s %s %04o %d:%d", e.Path, typeName(h.Typeflag), h.Mode&0o7777, h.Uid, h.Gid)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeLink:
		line += fmt.Sprintf(" %d bytes", len(e.Data))
	case tar.TypeSymlink:
		line = fmt.Sprintf("%s symlink %d:%d %s", e.Path, h.Uid, h.Gid, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		line += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	}
	var attrs []string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			attrs = append(attrs, fmt.Sprintf(" %s=%q", name, v))
		}
	}
	sort.Strings(attrs)
	return line + strings.Join(attrs, "")
}

func typeName(flag byte) string {
	switch flag {
	case tar.TypeReg, tar.TypeLink:
		return "file"
	case tar.TypeDir:
		return "dir"
	case tar.TypeSymlink:
		return "symlink"
	case tar.TypeChar:
		return "char"
	case tar.TypeBlock:
		return "block"
	case tar.TypeFifo:
		return "fifo"
	}
	return fmt.Sprintf("type-%c", flag)
}
