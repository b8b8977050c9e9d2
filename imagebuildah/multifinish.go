package imagebuildah

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// finishList records the images of all platforms, without names, and their
// list under the names, and writes the outputs.
func finishList(ctx context.Context, builds []*build, names []string) (*Result, error) {
	r := &Result{Names: names}
	var (
		images  []*image.Stored
		entries []v1.Descriptor
		targets []*stage
	)
	for _, b := range builds {
		c, err := b.commit(ctx, nil)
		if err != nil {
			return nil, err
		}
		if i := indexOf(r.Platforms, c.Digest); i >= 0 {
			b.warn(fmt.Sprintf("the images for %s and %s are the same: FROM --platform says so", define.FormatPlatform(r.Platforms[i].Platform), b.label))
			continue
		}
		stored, err := image.Load(b.engine.Store(), c.ImageID)
		if err != nil {
			return nil, err
		}
		r.Platforms = append(r.Platforms, PlatformResult{Platform: b.opts.platform(), ImageID: c.ImageID, Digest: c.Digest, MediaType: c.MediaType, Size: c.Size})
		images, entries, targets = append(images, stored), append(entries, stored.Descriptor()), append(targets, b.target())
	}
	b := builds[0]
	index, mediaType, err := image.EncodeIndex(b.opts.Format, entries, nil)
	if err != nil {
		return nil, err
	}
	if r.ImageID, err = image.RecordIndex(b.engine.Store(), index, images, names); err != nil {
		return nil, err
	}
	r.Digest, r.MediaType, r.Size = digest.FromBytes(index), mediaType, int64(len(index))
	define.Emit(b.engine.Listener(), define.Event{Kind: define.EventImage, Image: r.ImageID, Names: names})
	return r, b.writeListOutputs(ctx, targets, r)
}

func indexOf(done []PlatformResult, d digest.Digest) int {
	for i := range done {
		if done[i].Digest == d {
			return i
		}
	}
	return -1
}

// joinList adds the image of a build for one platform to the list that
// Options.Manifest names.
func (b *build) joinList(ctx context.Context, r *Result) error {
	if b.opts.Manifest == "" {
		return nil
	}
	name, err := transport.NormalizeTag(b.opts.Manifest)
	if err != nil {
		return err
	}
	_, err = manifest.UpdateNamed(ctx, b.engine.Store(), name, func(l *manifest.List) error {
		_, err := l.Add(r.ImageID)
		return err
	})
	return err
}

// writeListOutputs writes every output of a build for several platforms but
// the store's record.
func (b *build) writeListOutputs(ctx context.Context, targets []*stage, r *Result) error {
	r.Pushed = map[string]digest.Digest{}
	for _, tag := range b.opts.Tags {
		if transport.IsTransport(tag) {
			if err := b.push(ctx, r, tag, b.opts.Push); err != nil {
				return err
			}
		}
	}
	for _, o := range b.opts.Outputs {
		var err error
		switch o.Type {
		case "tar":
			err = toFile(o.Dest, func(w io.Writer) error { return writeTars(ctx, targets, w) })
		case "local":
			for _, s := range targets {
				if err == nil {
					err = s.b.writeLocal(ctx, s, filepath.Join(o.Dest, platformDir(s.b.opts.platform())))
				}
			}
		default:
			err = b.writeOutput(ctx, nil, b.pushable(r), o)
		}
		if err != nil {
			return fmt.Errorf("output type=%s: %w", o.Type, err)
		}
	}
	return nil
}

// pushable is the result without the name that Options.Manifest gave it, when
// that is one of the store only.
func (b *build) pushable(r *Result) *Result {
	list, err := transport.NormalizeTag(b.opts.Manifest)
	if err != nil || !strings.HasPrefix(list, "localhost/") {
		return r
	}
	p := *r
	p.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return n == list })
	return &p
}

// platformDir is a platform as a directory's name, as buildx writes it.
func platformDir(p define.Platform) string {
	return strings.ReplaceAll(define.FormatPlatform(p), "/", "_")
}

// writeTars writes the files of each platform below a directory of its name.
func writeTars(ctx context.Context, targets []*stage, w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, s := range targets {
		dir := platformDir(s.b.opts.platform())
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
			return err
		}
		pr, pw, err := os.Pipe()
		if err != nil {
			return err
		}
		written := make(chan error, 1)
		go func() {
			err := s.c.View(ctx, func(root *copier.Root) error { return root.Tar(ctx, "/", pw) })
			written <- errors.Join(err, pw.Close())
		}()
		err = below(dir, tw, pr)
		// The writer must not wait for a reader that has failed.
		err = errors.Join(err, pr.Close())
		if werr := <-written; werr != nil && err == nil {
			err = werr
		}
		if err != nil {
			return err
		}
	}
	return tw.Close()
}

// below copies the members of an archive to below a directory.
func below(dir string, tw *tar.Writer, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), "/"); name == "" {
			continue // the root itself, which dir stands for
		} else {
			h.Name = dir + "/" + name
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = dir + "/" + strings.TrimPrefix(strings.TrimPrefix(h.Linkname, "./"), "/")
		}
		h.Format = tar.FormatUnknown
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
