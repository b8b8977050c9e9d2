package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/stratabuild/strata/builder/transport/registrytest"
)

// Media types of the image specification 1.1.
const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+"
)

type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int           `json:"size"`
}

// pack makes an image of parts of a context by plain tools, which all tools
// pull: dir gets its blobs under their digests, manifest.json, and the layers'
// digests, one a line, in digests.
func pack(context, dir string, m *move) error {
	blobs := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(mediaType string, b []byte) (descriptor, error) {
		d := digest.FromBytes(b)
		return descriptor{mediaType, d, len(b)}, os.WriteFile(filepath.Join(blobs, d.Encoded()), b, 0o644)
	}
	var layers []descriptor
	var diffIDs []digest.Digest
	var list strings.Builder
	for _, part := range m.layers {
		content, err := exec.Command("tar", "-c", "-C", context, part).Output()
		if err != nil {
			return fmt.Errorf("tar of %s: %w", part, err)
		}
		zip := exec.Command("sh", "-c", zipper(m.zip, len(m.layers)))
		zip.Stdin = strings.NewReader(string(content))
		blob, err := zip.Output()
		if err != nil {
			return fmt.Errorf("%s of %s: %w", m.zip, part, err)
		}
		layer, err := put(layerType+m.zip, blob)
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, layer), append(diffIDs, digest.FromBytes(content))
		fmt.Fprintln(&list, layer.Digest)
	}
	text, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	config, err := put(configType, text)
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": layers})
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o644),
		os.WriteFile(filepath.Join(dir, "digests"), []byte(list.String()), 0o644))
}

// serve puts what pack made into a registry.
func serve(r *registrytest.Registry, dir string) error {
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return err
	}
	name, tag, _ := strings.Cut(pushed, ":")
	err = filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		r.PutBlob(name, b)
		return err
	})
	r.PutManifest(name, tag, registrytest.Manifest{MediaType: manifestType, Data: manifest})
	return err
}
