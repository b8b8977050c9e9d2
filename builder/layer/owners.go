package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// ownerRecord is copier.OwnerXattr as the library writes it into a tar header.
const ownerRecord = "SCHILY.xattr." + copier.OwnerXattr

// applyOwner gives a header the owner that is remembered of the object.
func applyOwner(h *tar.Header) {
	value, ok := h.PAXRecords[ownerRecord]
	if !ok {
		return
	}
	if owner, ok := copier.ParseOwner(value); ok {
		h.Uid, h.Gid = owner.UID, owner.GID
	}
	delete(h.PAXRecords, ownerRecord)
	delete(h.Xattrs, copier.OwnerXattr) //nolint:staticcheck // the reader fills both, and the writer writes both
}

// rememberOwners notes on the files of a layer of driver vfs, which the
// library has unpacked from stream, the owners that it could not give them:
// with one id the next layer is compared with, and changes a copy of, what
// would else be that id's.
func (s *Space) rememberOwners(id define.LayerID, stream io.Reader) error {
	raw := s.st.Raw()
	if !s.st.UserXattr() || raw.GraphDriverName() != "vfs" {
		return nil
	}
	root, err := openRoot(path.Join(raw.GraphRoot(), "vfs", "dir", string(id)), false)
	if errors.Is(err, unix.ENOENT) {
		return nil // in the image store
	}
	if err != nil {
		return err
	}
	defer root.Close()
	in := tar.NewReader(stream)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir || h.Uid == 0 && h.Gid == 0 {
			continue
		}
		if err := rememberOwner(int(root.Fd()), h.Name, copier.Owner{UID: h.Uid, GID: h.Gid}); err != nil {
			return fmt.Errorf("remembering the owner of %q: %w", h.Name, err)
		}
	}
}

func rememberOwner(root int, name string, owner copier.Owner) error {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // a mark of a deletion
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) == owner.UID && int(st.Gid) == owner.GID {
		return nil
	}
	err = unix.Fsetxattr(fd, copier.OwnerXattr, fmt.Appendf(nil, "%d:%d", owner.UID, owner.GID), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil // the file system has no such attributes
	}
	return err
}
