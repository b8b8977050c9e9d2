package cache

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func recordPath(base string, id [32]byte) string {
	h := hex.EncodeToString(id[:])
	return filepath.Join(base, "records", h[:1], h[1:])
}

// validLayerID also makes sure that an ID is a harmless file name.
func validLayerID(id string) bool {
	if len(id) != 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// processTag makes temporary names unique. A process ID would not: workers
// are number 1 of their own namespaces.
var processTag = sync.OnceValue(func() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(b)
})

var tempCount atomic.Uint64

func tempName(base string) string {
	return filepath.Join(base, "tmp", processTag()+"-"+strconv.FormatUint(tempCount.Add(1), 36))
}

// writeFile writes a file that appears complete or not at all.
func writeFile(base, path string, write func(fd int) error) error {
	tmp := tempName(base)
	fd, err := createFile(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "create", Path: tmp, Err: err}
	}
	if err := writeClose(fd, tmp, write); err != nil {
		return err
	}
	return moveIn(tmp, path)
}

// writeNew writes a file that does not exist yet, and reports false when it
// does. Readers may see a part of it: the format must tell.
func writeNew(path string, write func(fd int) error) (bool, error) {
	fd, err := createFile(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "create", Path: path, Err: err}
	}
	return true, writeClose(fd, path, write)
}

// unnamedFile opens a file in tmp that has no name, so that it is gone with
// its descriptor however the process ends.
func unnamedFile(base string) (*heldFile, error) {
	dir := filepath.Join(base, "tmp")
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err := openFile(dir, flags|unix.O_TMPFILE)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			fd, err = openFile(dir, flags|unix.O_TMPFILE)
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		// A file system that has no such files.
		name := tempName(base)
		if fd, err = openFile(name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW); err == nil {
			err = unix.Unlink(name)
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "create a file in", Path: dir, Err: err}
	}
	return newHeldFile(fd), nil
}

// heldFile is a descriptor that is closed when nothing refers to it any more.
type heldFile struct{ fd int }

func newHeldFile(fd int) *heldFile {
	f := &heldFile{fd}
	runtime.AddCleanup(f, func(fd int) { _ = unix.Close(fd) }, fd)
	return f
}

// ReadAt implements io.ReaderAt.
func (f *heldFile) ReadAt(b []byte, offset int64) (int, error) {
	n, err := readAt(f.fd, b, offset)
	runtime.KeepAlive(f)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *heldFile) WriteAt(b []byte, offset int64) (int, error) {
	n, err := writerAt(f.fd).WriteAt(b, offset)
	runtime.KeepAlive(f)
	return n, err
}

// createFile makes the directory that is missing the first time.
func createFile(path string, flags int) (int, error) {
	fd, err := openFile(path, flags)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			fd, err = openFile(path, flags)
		}
	}
	return fd, err
}

// writeClose removes the file when it cannot be written.
func writeClose(fd int, path string, write func(fd int) error) error {
	err := write(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = unix.Unlink(path)
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// moveIn renames a temporary object to its place, making the directory that
// is missing the first time.
func moveIn(tmp, path string) error {
	err := unix.Rename(tmp, path)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = unix.Rename(tmp, path)
		}
	}
	if err != nil {
		_ = unix.Unlink(tmp)
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	return nil
}

// openFile, readAll and their kin go straight to the system calls: the os
// package would register each descriptor with the poller and with a
// finalizer, which doubles the cost of a look-up.
func openFile(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// allOf writes b to a file.
func allOf(b []byte) func(fd int) error { return func(fd int) error { return writeAll(fd, b) } }

// writer is a descriptor as an io.Writer.
type writer int

func (fd writer) Write(b []byte) (int, error) { return len(b), writeAll(int(fd), b) }

// writerAt is a descriptor as an io.WriterAt.
type writerAt int

func (fd writerAt) WriteAt(b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pwrite(int(fd), b[done:], offset+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readAt fills b from the offset and returns how much there was.
func readAt(fd int, b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(fd, b[done:], offset+int64(done))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// touchEvery is how precisely times of use are kept: a hit writes to the
// inode at most this often.
const touchEvery = time.Minute

// touchFile sets the modification time to now unless it is close to it. A
// time in the future (the clock was set back) is corrected.
func touchFile(fd int, now time.Time) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	age := now.Sub(time.Unix(st.Mtim.Unix()))
	if age > touchEvery || age < -touchEvery {
		_ = setMTime(fd, now) // a time of use is no reason to fail
	}
}

// utimeOmit is UTIME_OMIT of utimensat(2).
const utimeOmit = (1 << 30) - 2

func setMTime(fd int, t time.Time) error {
	m, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	// The magic link reaches the open file, whatever its name is by now.
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), []unix.Timespec{{Nsec: utimeOmit}, m}, 0)
}

// addOrphan notes a layer that no record names any more.
func addOrphan(base, layer string) error {
	path := filepath.Join(base, "orphans", layer)
	fd, err := createFile(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("note layer %s: %w", layer, err)
	}
	return unix.Close(fd)
}
