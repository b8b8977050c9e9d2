package baseimage

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// debFile returns a reader of the first of the named files in a Debian
// package: an ar(5) archive whose member data.tar.* holds the files (deb(5)).
func debFile(deb io.Reader, names ...string) (io.Reader, error) {
	r := bufio.NewReader(deb)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != "!<arch>\n" {
		return nil, errors.New("not a Debian package")
	}
	for {
		head := make([]byte, 60)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, fmt.Errorf("no data in the package: %w", err)
		}
		name := strings.TrimRight(strings.TrimSpace(string(head[:16])), "/")
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("member %q of the package has no valid size", name)
		}
		if strings.HasPrefix(name, "data.tar") {
			data, err := decompress(path.Ext(name), io.LimitReader(r, size))
			if err != nil {
				return nil, err
			}
			return tarFile(data, names)
		}
		if _, err := io.CopyN(io.Discard, r, size+size%2); err != nil { // members start at even offsets
			return nil, err
		}
	}
}

func decompress(ext string, r io.Reader) (io.Reader, error) {
	switch ext {
	case ".tar":
		return r, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return xz.NewReader(r)
	case ".zst":
		return zstd.NewReader(r)
	}
	return nil, fmt.Errorf("packages compressed as %s cannot be read", ext)
}

func tarFile(r io.Reader, names []string) (io.Reader, error) {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("no %s in the package", names[0])
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg && slices.Contains(names, strings.TrimPrefix(path.Clean(h.Name), "/")) {
			return t, nil
		}
	}
}
