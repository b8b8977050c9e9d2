package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sync/errgroup"
)

// A push of an image whose base the registry has should not compress and send
// the base again. The store keeps layers uncompressed, so it must be known
// what they were compressed to: for pulled layers the storage library notes
// it, for pushed ones this file does, in blobsFile of the store's state
// directory. (containers/image has a cache for it, in SQLite, which needs
// cgo.) Each line is "diffID digest size", with a fourth field "zstd" where
// that is the form; a later line beats an earlier one. The file is a hint: what is wrong or lost in it costs time, and the registry
// is asked before a line is believed.
const (
	blobsFile    = "pushed-blobs"
	maxBlobsFile = 1 << 20 // bytes; half is dropped then
	askAtOnce    = 6       // requests, as containers/image copies
)

// blobForm is a layer in one form of compression.
type blobForm struct {
	diffID digest.Digest
	algo   string // "gzip" or "zstd"
}

// findPresent asks the destination which layers of the source it has
// compressed with the algorithm, and makes the source offer those.
func (c *Client) findPresent(ctx context.Context, s *source, algorithm string, dst types.ImageReference, sys *types.SystemContext) {
	if algorithm == "" {
		algorithm = compression.Gzip.Name()
	}
	known := c.compressed(s, algorithm)
	if len(known) == 0 {
		return
	}
	dest, err := dst.NewImageDestination(ctx, sys)
	if err != nil {
		return // the copy meets the same and says so
	}
	defer dest.Close()
	found := make([]bool, len(known))
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for i, k := range known {
		g.Go(func() error {
			ok, _, err := dest.TryReusingBlob(ctx, k.info, none.NoCache, false)
			found[i] = err == nil && ok
			return nil
		})
	}
	g.Wait() //nolint:errcheck // none returns one
	s.present, s.presentIn = map[digest.Digest]types.BlobInfo{}, algorithm
	for i, k := range known {
		if found[i] {
			s.present[k.diffID] = k.info
		}
	}
}

type knownBlob struct {
	diffID digest.Digest
	info   types.BlobInfo
}

// compressed lists the source's layers whose form in the algorithm is known.
func (c *Client) compressed(s *source, algorithm string) []knownBlob {
	pushed := c.readBlobs()
	var out []knownBlob
	seen := map[digest.Digest]bool{}
	add := func(diffID, d digest.Digest, size int64) {
		if d == "" || d == diffID || size <= 0 || d.Validate() != nil || seen[diffID] {
			return
		}
		seen[diffID] = true
		out = append(out, knownBlob{diffID, types.BlobInfo{Digest: d, Size: size}})
	}
	pulledAs := archive.Gzip
	if algorithm == compression.Zstd.Name() {
		pulledAs = archive.Zstd
	}
	for _, img := range s.images {
		for _, l := range img.layers {
			if k, ok := pushed[blobForm{l.UncompressedDigest, algorithm}]; ok {
				add(l.UncompressedDigest, k.Digest, k.Size)
			} else if l.CompressionType == pulledAs {
				add(l.UncompressedDigest, l.CompressedDigest, l.CompressedSize)
			}
		}
	}
	return out
}

// chain returns the layers of an image, the bottom one first.
func (c *Client) chain(img *image.Stored) []*storage.Layer {
	var out []*storage.Layer
	for id := string(img.TopLayer); id != ""; {
		l, err := c.raw().Layer(id)
		if err != nil {
			return nil
		}
		out = append(out, l)
		id = l.Parent
	}
	slices.Reverse(out)
	return out
}

func (c *Client) blobsPath() string {
	dir, err := c.st.StateDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, blobsFile)
}

func (c *Client) readBlobs() map[blobForm]types.BlobInfo {
	path := c.blobsPath()
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4*maxBlobsFile))
	if err != nil {
		return nil
	}
	return parseBlobs(data)
}

func parseBlobs(data []byte) map[blobForm]types.BlobInfo {
	out := map[blobForm]types.BlobInfo{}
	for line := range strings.Lines(string(data)) {
		field := strings.Fields(line)
		algorithm := compression.Gzip.Name()
		if len(field) == 4 && field[3] == compression.Zstd.Name() {
			algorithm, field = field[3], field[:3]
		}
		if len(field) != 3 || !strings.HasSuffix(line, "\n") {
			continue
		}
		diffID, d := digest.Digest(field[0]), digest.Digest(field[1])
		size, err := strconv.ParseInt(field[2], 10, 64)
		if err != nil || size <= 0 || diffID.Validate() != nil || d.Validate() != nil {
			continue
		}
		out[blobForm{diffID, algorithm}] = types.BlobInfo{Digest: d, Size: size}
	}
	return out
}

// rememberPushed notes what the layers of a pushed image were compressed to.
// Failures cost the next push some time and are not reported.
func (c *Client) rememberPushed(img *sourceImage, pushed []byte) {
	man, err := image.ParseManifest(pushed)
	path := c.blobsPath()
	layers := img.layers
	if err != nil || path == "" || len(man.Layers) != len(layers) {
		return
	}
	_, gzipped := image.LayerTypes(man.MediaType)
	known := c.readBlobs()
	var lines bytes.Buffer
	for n, l := range man.Layers {
		form := blobForm{diffID: layers[n].UncompressedDigest} // the storage library's own sum
		suffix := ""
		switch {
		case l.MediaType == gzipped:
			form.algo = compression.Gzip.Name()
		case l.MediaType == v1.MediaTypeImageLayerZstd:
			form.algo = compression.Zstd.Name()
			suffix = " " + form.algo
		default:
			continue
		}
		if form.diffID != "" && l.Digest != form.diffID && known[form].Digest != l.Digest {
			fmt.Fprintf(&lines, "%s %s %d%s\n", form.diffID, l.Digest, l.Size, suffix)
		}
	}
	if lines.Len() == 0 {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if _, err := f.Write(lines.Bytes()); err != nil {
		return
	}
	if info, err := f.Stat(); err == nil && info.Size() > maxBlobsFile {
		halve(path)
	}
}

// halve drops the older half of the file.
func halve(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	_, newer, _ := bytes.Cut(data[len(data)/2:], []byte("\n"))
	beside := path + ".new"
	if err := os.WriteFile(beside, newer, 0o600); err != nil {
		return
	}
	if err := os.Rename(beside, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		os.Remove(beside)
	}
}
