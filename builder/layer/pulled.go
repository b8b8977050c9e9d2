package layer

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// The library unpacks layers that are pulled, and where one id is mapped all in
// them is that id's. Which owners they have says their tar-split record.
// Before a layer is built on, they are noted on its files: a step that changes
// one copies the note with it, and does not make it root's. That an OwnerLog
// lies beside the directory says that this was done.

// noteOwners does so for a layer whose directory is at path. What cannot be
// noted is the one id's, as before.
func (s *Space) noteOwners(l *Layer, path string) {
	if len(l.dirs) != 1 || !slices.ContainsFunc(s.st.Raw().GraphOptions(), func(o string) bool {
		return strings.HasSuffix(o, "ignore_chown_errors=true")
	}) {
		return
	}
	home := filepath.Dir(path)
	if unix.Access(filepath.Join(home, copier.OwnerLogName), unix.F_OK) == nil {
		return
	}
	raw := s.st.Raw()
	f, err := os.Open(filepath.Join(raw.GraphRoot(), raw.GraphDriverName()+"-layers", string(l.info.ID)+".tar-split.gz"))
	if err != nil {
		return // not one of this store's
	}
	defer f.Close()
	log, err := copier.OpenOwnerLog(l.dirs[0])
	if err != nil {
		return
	}
	defer log.Close()
	if noteStream(int(l.dirs[0].Fd()), log, f) == nil {
		_ = log.Create()
	}
}

// noteStream notes the owners that a tar-split record tells of.
func noteStream(root int, log *copier.OwnerLog, record io.Reader) error {
	z, err := gzip.NewReader(record)
	if err != nil {
		return err
	}
	links := map[copier.FileKey]copier.Owner{}
	in := tar.NewReader(&headers{lines: bufio.NewReader(z)})
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		owner := copier.Owner{UID: h.Uid, GID: h.Gid}
		if owner == (copier.Owner{}) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeDir:
			err = rememberOwner(root, h.Name, owner)
		case tar.TypeSymlink, tar.TypeFifo:
			err = linkKeyBelow(root, h.Name, func(key copier.FileKey) { links[key] = owner })
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ELOOP) {
			return err
		}
	}
	for key, owner := range links {
		if err := log.Note(key, owner); err != nil {
			return err
		}
	}
	return nil
}

func linkKeyBelow(root int, name string, f func(copier.FileKey)) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	key, err := copier.KeyOf(fd)
	if err == nil {
		f(key)
	}
	return err
}

// headers reads a tar-split record as the tar stream that it is of, with zeros
// in place of the files' content.
type headers struct {
	lines *bufio.Reader
	bytes []byte
	zeros int64
}

func (h *headers) Read(p []byte) (int, error) {
	for len(h.bytes) == 0 && h.zeros == 0 {
		line, err := h.lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return 0, err
		}
		// See tarsplit.go.
		var e struct {
			Type    int    `json:"type"`
			Size    int64  `json:"size"`
			Payload []byte `json:"payload"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, err
		}
		switch e.Type {
		case 1:
			h.zeros = max(e.Size, 0)
		case 2:
			h.bytes = e.Payload
		}
	}
	if len(h.bytes) > 0 {
		n := copy(p, h.bytes)
		h.bytes = h.bytes[n:]
		return n, nil
	}
	n := int(min(int64(len(p)), h.zeros))
	clear(p[:n])
	h.zeros -= int64(n)
	return n, nil
}
