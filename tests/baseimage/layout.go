package baseimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ref is the name of the image inside the layout.
const Ref = "busybox"

// Layout makes the layout in a directory of the test's own and returns its
// path. The test is skipped, with what to install, where no busybox is to be
// had.
func Layout(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	busybox, err := Busybox(context.Background(), dir)
	if err != nil {
		t.Skip(err)
	}
	layout := filepath.Join(dir, "layout")
	if _, err := Write(layout, Ref, busybox); err != nil {
		t.Fatal(err)
	}
	return layout
}

// Write makes an OCI image layout at dir, which is made when missing, with
// one image named ref, and returns the digest of its manifest.
func Write(dir, ref, busybox string) (digest.Digest, error) {
	names, err := applets(busybox)
	if err != nil {
		return "", err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return "", err
	}
	arch, err := architecture(busybox)
	if err != nil {
		return "", err
	}
	// The digest of the stream is taken on its way into the compressor.
	diff := digest.SHA256.Digester()
	var blob bytes.Buffer
	gz, err := gzip.NewWriterLevel(&blob, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	if err := errors.Join(writeRootfs(io.MultiWriter(gz, diff.Hash()), program, names), gz.Close()); err != nil {
		return "", err
	}
	l := layout{dir: dir}
	if err := l.init(); err != nil {
		return "", err
	}
	layer, err := l.blob(v1.MediaTypeImageLayerGzip, blob.Bytes())
	if err != nil {
		return "", err
	}
	config, err := l.json(v1.MediaTypeImageConfig, imageConfig(arch, diff.Digest()))
	if err != nil {
		return "", err
	}
	manifest, err := l.json(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: []v1.Descriptor{layer},
	})
	if err != nil {
		return "", err
	}
	return manifest.Digest, l.finish(manifest, ref)
}

func imageConfig(arch string, diffID digest.Digest) v1.Image {
	created := Epoch
	return v1.Image{
		Created:  &created,
		Platform: v1.Platform{OS: "linux", Architecture: arch},
		Config: v1.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{"sh"},
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []v1.History{{Created: &created, CreatedBy: "busybox and its links"}},
	}
}

// architecture tells what the program runs on, in Go's words.
func architecture(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	known := map[elf.Machine]string{
		elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm",
		elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64le", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
	}
	if arch, ok := known[f.Machine]; ok {
		return arch, nil
	}
	return "", fmt.Errorf("%s: unknown machine %s", path, f.Machine)
}

// layout writes an OCI image layout (image specification, image-layout.md).
type layout struct{ dir string }

func (l layout) init() error {
	if err := os.MkdirAll(filepath.Join(l.dir, v1.ImageBlobsDir, "sha256"), 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, v1.ImageLayoutFile), b, 0o644)
}

func (l layout) blob(mediaType string, b []byte) (v1.Descriptor, error) {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, os.WriteFile(filepath.Join(l.dir, v1.ImageBlobsDir, "sha256", d.Digest.Encoded()), b, 0o644)
}

func (l layout) json(mediaType string, v any) (v1.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return l.blob(mediaType, b)
}

func (l layout) finish(manifest v1.Descriptor, ref string) error {
	manifest.Annotations = map[string]string{v1.AnnotationRefName: ref}
	b, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, v1.ImageIndexFile), b, 0o644)
}

// Archive writes the layout at dir as an OCI archive, for "oci-archive:FILE".
// Its members belong to this process's user: skopeo 1.9 keeps the owners of
// what it unpacks, as far as it may.
func Archive(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		h := tar.Header{Name: filepath.ToSlash(name), ModTime: Epoch, Uid: os.Getuid(), Gid: os.Getgid()}
		if d.IsDir() {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
			return t.WriteHeader(&h)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, int64(len(b))
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
		_, err = t.Write(b)
		return err
	})
	return errors.Join(err, t.Close())
}
