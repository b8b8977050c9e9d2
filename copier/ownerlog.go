package copier

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// OwnerLogName is the name of an upper directory's OwnerLog, beside it.
const OwnerLogName = "strata-owners"

// maxOwnerLog bounds what is read of a log.
const maxOwnerLog = 64 << 20

// FileKey names an inode for as long as it lives: its handle
// (name_to_handle_at(2)) holds a number that changes when the inode is used
// anew. Renames and further hard links leave it as it is.
type FileKey struct{ handle string }

// KeyOf returns the key of an open file or link; O_PATH is enough. File
// systems without handles give an error.
func KeyOf(fd int) (FileKey, error) {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return FileKey{}, fmt.Errorf("handle of the file: %w", err)
	}
	return FileKey{fmt.Sprintf("%x.%x", h.Type(), h.Bytes())}, nil
}

// OwnerLog remembers, for one upper directory, the owners of what cannot have
// OwnerXattr: symbolic links and special files. It is a file beside the
// directory (OwnerLogName), with a line "KEY UID:GID" for each change; the last
// one about a key counts, and one that was not written to its end does not. It
// is made with the first note.
type OwnerLog struct {
	upper *os.File

	mu     sync.Mutex
	file   *os.File
	torn   bool // its last line has no end
	owners map[FileKey]Owner
}

// OpenOwnerLog reads the log of an upper directory, which may have none yet.
func OpenOwnerLog(upper *os.File) (*OwnerLog, error) {
	l := &OwnerLog{owners: map[FileKey]Owner{}}
	fd, err := unix.Openat(int(upper.Fd()), "../"+OwnerLogName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), OwnerLogName)
		defer f.Close()
		if err := l.read(f); err != nil {
			return nil, fmt.Errorf("owners of the layer's links: %w", err)
		}
	} else if !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("owners of the layer's links: %w", err)
	}
	if fd, err = unix.FcntlInt(upper.Fd(), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		return nil, err
	}
	l.upper = os.NewFile(uintptr(fd), upper.Name())
	return l, nil
}

func (l *OwnerLog) read(f *os.File) error {
	b, err := io.ReadAll(io.LimitReader(f, maxOwnerLog))
	if err != nil {
		return err
	}
	text := string(b)
	for {
		line, rest, ok := strings.Cut(text, "\n")
		if !ok {
			l.torn = line != ""
			return nil
		}
		text = rest
		key, value, _ := strings.Cut(line, " ")
		if owner, ok := ParseOwner(value); ok {
			l.owners[FileKey{key}] = owner
		}
	}
}

// Empty reports that nothing is remembered.
func (l *OwnerLog) Empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.owners) == 0
}

// Owner returns what is remembered of an inode.
func (l *OwnerLog) Owner(key FileKey) (Owner, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.owners[key]
	return o, ok
}

// Note remembers an inode's owner.
func (l *OwnerLog) Note(key FileKey, owner Owner) error {
	if err := l.Create(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var line []byte
	if l.torn {
		line = append(line, '\n')
	}
	line = append(append(append(line, key.handle...), ' '), owner.Append(nil)...)
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return err
	}
	l.torn = false
	l.owners[key] = owner
	return nil
}

// Create makes the log's file, also when there is nothing to note.
func (l *OwnerLog) Create() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
		fd, err := unix.Openat(int(l.upper.Fd()), "../"+OwnerLogName, flags, 0o600)
		if err != nil {
			return err
		}
		l.file = os.NewFile(uintptr(fd), OwnerLogName)
	}
	return nil
}

// Close closes it.
func (l *OwnerLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.upper.Close()
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	return err
}
