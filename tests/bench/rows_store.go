package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
)

// storeRows are what costs something where much is stored.
//
// strata keeps an index of the list of layers, but trusts none of a list that
// was written within the last tenth of a second, whose next change might look the
// same. A user meets both: mostly the list is older, and in a row of builds,
// one right after the other, it is not. Hence rows that wait, and one that
// begins right after another build.
func storeRows(s scale) []row {
	none := func(string) error { return nil }
	fill := func(dir string) error { return fillStore(filepath.Join(dir, "root"), s.images, s.layers) }
	steps := func(dir string) error { return containerfile(dir, runSteps(s.steps)...) }
	other := func(dir string) error {
		text := "FROM " + baseName + "\nARG N\nRUN echo $N >/other\n"
		return errors.Join(steps(dir), os.WriteFile(filepath.Join(dir, "Other"), []byte(text), 0o644))
	}
	in := fmt.Sprintf(" among %d images of %d layers", s.images, s.layers)
	const noList = "no plain tool reads these records"
	const nothing = "by hand nothing is left to do"
	return []row{
		{name: "images" + in, context: none, store: fill, settled: true, args: []string{"images", "-q"}, noScript: noList},
		{name: fmt.Sprintf("%d RUN echo, cached,", s.steps) + in, context: steps, store: fill, settled: true, cached: true, noScript: nothing},
		{
			name: fmt.Sprintf("%d RUN echo, cached, right after another build,", s.steps) + in, context: other, store: fill, cached: true,
			before:   `B build $LAYERS -q --build-arg N="$N" -t localhost/other -f "$CONTEXT/Other" "$CONTEXT" >/dev/null`,
			noScript: nothing,
		},
		{
			name: fmt.Sprintf("%d RUN echo, no cache,", s.steps) + in, context: steps, store: fill, settled: true,
			script: fmt.Sprintf("steps=%d\n%s", s.steps, stepScript),
		},
		{name: "inspect", context: none, args: []string{"inspect", "--type", "image", baseName}, noScript: noList},
		{name: "rmi", context: none, before: "B tag " + baseName + " localhost/name$N", args: []string{"rmi", "localhost/name$N"}, noScript: noList},
		layersRow(s.deep[0]), layersRow(s.deep[1]),
	}
}

// layersRow adds a step to an image of n layers.
func layersRow(n int) row {
	return row{
		name: fmt.Sprintf("RUN on %d layers", n), cached: true,
		context: func(dir string) error {
			return containerfile(dir, append(runSteps(n-2), "ARG N", "RUN echo $N >/n")...)
		},
		args:   []string{"build", "--build-arg", "N=$N", "-t", "localhost/bench", "$CONTEXT"},
		script: fmt.Sprintf("layers=%d\n%s", n, deepScript),
	}
}

// settle is how long lists and files must be as they are to count as settled.
const settle = 2500 * time.Millisecond

// waitSettled waits until no list of the store below dir was written lately.
func waitSettled(ctx context.Context, dir string) error {
	newest := time.Time{}
	for _, name := range []string{"layers", "images"} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, "root", "overlay-"+name, name+".json"), &st) != nil {
			continue
		}
		for _, t := range []unix.Timespec{st.Mtim, st.Ctim} {
			if at := time.Unix(t.Unix()); at.After(newest) {
				newest = at
			}
		}
	}
	select {
	case <-time.After(time.Until(newest.Add(settle))):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fillStore writes the records of images into a store of the overlay driver,
// as so many pulls would leave them and in the library's form; their layers are
// empty directories. There is no way to make them that does not take an hour.
func fillStore(root string, images, layers int) error {
	when := time.Unix(1_600_000_000, 0).UTC()
	imageFile, layerFile := filepath.Join(root, "overlay-images", "images.json"), filepath.Join(root, "overlay-layers", "layers.json")
	var imageList []storage.Image
	var layerList []storage.Layer
	if err := errors.Join(readList(imageFile, &imageList), readList(layerFile, &layerList)); err != nil {
		return err
	}
	for i := range images {
		parent, diffs := "", []string{}
		for l := range layers {
			id := sum(fmt.Sprintf("layer %d %d", i, l))
			layer := storage.Layer{
				ID: id, Parent: parent, Created: when, CompressedSize: 1024, UncompressedDigest: digest.Digest("sha256:" + id), UncompressedSize: 1024,
				UIDs: []uint32{0}, GIDs: []uint32{0},
			}
			layerList = append(layerList, layer)
			parent = id
			diffs = append(diffs, "sha256:"+id)
			if err := fakeLayer(root, id); err != nil {
				return err
			}
		}
		record, err := fakeImage(root, i, parent, when, diffs)
		if err != nil {
			return err
		}
		imageList = append(imageList, record)
	}
	return errors.Join(writeList(imageFile, imageList), writeList(layerFile, layerList))
}

// bigDataFile is the name of a file of an image: containers/storage writes a
// key that is no plain word in base64.
func bigDataFile(key string) string { return "=" + base64.StdEncoding.EncodeToString([]byte(key)) }

func sum(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// fakeLayer makes the directories that the driver wants to see.
func fakeLayer(root, id string) error {
	dir, link := filepath.Join(root, "overlay", id), id[:26]
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "diff"), 0o755),
		os.WriteFile(filepath.Join(dir, "link"), []byte(link), 0o644),
		os.Symlink(filepath.Join("..", id, "diff"), filepath.Join(root, "overlay", "l", link)),
	)
}

// fakeImage writes config and manifest, and returns the record.
func fakeImage(root string, i int, top string, when time.Time, diffs []string) (record storage.Image, err error) {
	config, err := json.Marshal(map[string]any{
		"created": when, "architecture": "amd64", "os": "linux", "config": map[string]any{"Labels": map[string]string{"n": fmt.Sprint(i)}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return record, err
	}
	id := sum(string(config))
	blobs := []map[string]any{}
	for _, d := range diffs {
		blobs = append(blobs, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": 1024})
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": blobs,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + id, "size": len(config)},
	})
	if err != nil {
		return record, err
	}
	dir := filepath.Join(root, "overlay-images", id)
	key := "sha256:" + id
	err = errors.Join(os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, bigDataFile(key)), config, 0o600),
		os.WriteFile(filepath.Join(dir, "manifest"), manifest, 0o600))
	of := digest.FromBytes(manifest)
	return storage.Image{
		ID: id, Digest: of, Names: []string{fmt.Sprintf("localhost/filled%d:latest", i)},
		TopLayer: top, Created: when, BigDataNames: []string{key, "manifest"},
		BigDataSizes:   map[string]int64{key: int64(len(config)), "manifest": int64(len(manifest))},
		BigDataDigests: map[string]digest.Digest{key: digest.Digest(key), "manifest": of},
	}, err
}

func readList(file string, list any) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return errors.Join(err, json.Unmarshal(b, list))
}

func writeList(file string, list any) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
