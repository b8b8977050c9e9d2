package store

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.podman.io/storage/pkg/archive"
)

// TestNoPrograms: a layer is unpacked by this program, whatever is installed.
func TestNoPrograms(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"pigz", "zstd"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	for name, pack := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var packed bytes.Buffer
		w, err := pack(&packed)
		if err == nil {
			_, err = io.WriteString(w, "content")
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := archive.DecompressStream(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = r.Close()
	}
}
