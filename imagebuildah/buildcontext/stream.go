package buildcontext

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// headSize is how much of a stream is looked at to tell an archive from a
// build file: a bzip2 block, the largest unit that must be read whole, has up
// to 900 kB.
const headSize = 1 << 20

// magics begin the compressed forms that copier.Extract reads. Whatever
// begins so is an archive or an error, never a build file.
var magics = [][]byte{
	{0x1f, 0x8b},                       // gzip
	[]byte("BZh"),                      // bzip2
	{0xfd, '7', 'z', 'X', 'Z', 0},      // xz
	{0x28, 0xb5, 0x2f, 0xfd},           // zstd
	{0x50, 0x2a, 0x4d, 0x18},           // zstd, skippable frame
	{0x5d, 0x00, 0x00, 0x80, 0x00},     // lzma
	{'P', 'K', 3, 4}, {'P', 'K', 5, 6}, // zip: named in the error
}

// unpack reads a stream: an archive becomes the context, anything else must
// be a build file, which is returned and has an empty context.
//
// The decision falls on the first bytes alone. An archive that turns out to
// be broken is never read again as something else: that fallback is how
// CVE-2026-44517 wrote through a link that the failed attempt had left.
func (c *Context) unpack(ctx context.Context, o *Options, stream io.Reader) ([]byte, error) {
	r := bufio.NewReaderSize(contextReader{ctx, stream}, headSize)
	head, err := r.Peek(headSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the build context from %s: %w", c.Name, err)
	}
	if len(head) == 0 {
		return nil, fmt.Errorf("the build context from %s is empty; want a tar archive or a Containerfile: %w", c.Name, define.ErrInvalid)
	}
	if err := c.makeTemp(o); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte("PK\x05\x06")) {
		return nil, fmt.Errorf("the build context from %s is a zip archive; want tar, plain or compressed: %w", c.Name, define.ErrInvalid)
	}
	if isArchive(head) {
		err := c.root.Extract(ctx, r, copier.Extract{
			Dest:              "/",
			IgnoreChownErrors: true,
			MaxBytes:          o.MaxBytes,
			MaxMembers:        o.MaxMembers,
			// Nothing is copied of a device; root finds it in the context, too.
			DeviceRefused: func(string) {},
		})
		if err != nil {
			return nil, fmt.Errorf("build context from %s: %w", c.Name, err)
		}
		return nil, nil
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxBuildFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the build context from %s: %w", c.Name, err)
	}
	if len(text) > MaxBuildFile || bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text[:min(len(text), 512)]) && bytes.IndexByte(text, '\n') < 0 {
		return nil, fmt.Errorf("the build context from %s is neither a tar archive nor a Containerfile: %w", c.Name, define.ErrInvalid)
	}
	return text, nil
}

func isArchive(head []byte) bool {
	for _, m := range magics {
		if bytes.HasPrefix(head, m) {
			return true
		}
	}
	return copier.IsArchive(head)
}

// contextReader ends a read loop when its context does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives as long as one copy
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
