package copier

import (
	"io/fs"
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// Info is what lstat(2) tells of an object.
type Info struct {
	Mode     fs.FileMode // type, permission, setuid, setgid and sticky bits
	UID, GID int
	Size     int64
	ModTime  time.Time
	Link     string // target of a symbolic link
}

// Stat describes what unsafePath names; follow says whether a symbolic link
// at its end is followed (those before always are, inside r).
func (r *Root) Stat(unsafePath string, follow bool) (Info, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := r.resolver().Open(unsafePath, flags)
	if err != nil {
		return Info{}, fail("stat", unsafePath, err)
	}
	defer at.Close(fd)
	var st unix.Stat_t
	if err := at.Stat(fd, &st); err != nil {
		return Info{}, fail("stat", unsafePath, err)
	}
	info := infoOf(&st)
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if info.Link, err = at.Readlink(fd, ""); err != nil {
			return Info{}, fail("read link", unsafePath, err)
		}
	}
	return info, nil
}

func infoOf(st *unix.Stat_t) Info {
	return Info{
		Mode: fileMode(st.Mode), UID: int(st.Uid), GID: int(st.Gid), Size: st.Size,
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
}

// fileMode turns the kernel's mode into Go's.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// permBits turns the permission, setuid, setgid and sticky bits of m into the
// kernel's.
func permBits(m fs.FileMode) uint32 {
	p := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		p |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		p |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		p |= unix.S_ISVTX
	}
	return p
}

// perm applies a --chmod function to the object with the kernel's mode.
func perm(mode uint32, change func(fs.FileMode) fs.FileMode) uint32 {
	if change == nil {
		return mode & 0o7777
	}
	return permBits(change(fileMode(mode)))
}
