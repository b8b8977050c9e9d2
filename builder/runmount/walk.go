package runmount

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// Chown gives f, and all below it on any mount, to a user. Symbolic links are
// changed themselves; nothing is followed.
func Chown(f *os.File, uid, gid int) error {
	return eachBelow(f, func(fd int, st *unix.Stat_t) error {
		if int(st.Uid) == uid && int(st.Gid) == gid {
			return nil
		}
		return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Remember is Chown where one id is mapped and f is the builder's own: the
// owners are remembered (copier.OwnerXattr), and are all 0:0 with a user of
// root's. Symbolic links and special files stay the one id's.
func Remember(f *os.File, owner copier.Owner) error {
	return eachBelow(f, func(fd int, st *unix.Stat_t) error {
		if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
			return nil
		}
		return copier.Note(fd, owner)
	})
}

const selinuxXattr = "security.selinux"

// Relabel gives f and all below it an SELinux label that containers may use:
// one that all of them share, or with private one of two random categories.
// File systems without labels are left as they are.
func Relabel(f *os.File, private bool) error {
	label := "system_u:object_r:container_file_t:s0"
	if private {
		var b [4]byte
		rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
		one, other := binary.LittleEndian.Uint16(b[:])%1024, binary.LittleEndian.Uint16(b[2:])%1023
		if other >= one {
			other++
		}
		label += fmt.Sprintf(":c%d,c%d", min(one, other), max(one, other))
	}
	return eachBelow(f, func(fd int, _ *unix.Stat_t) error {
		// A descriptor that only names its file has no calls of its own for
		// attributes. The last component is the file, be it a link.
		err := unix.Setxattr("/proc/self/fd/"+strconv.Itoa(fd), selinuxXattr, []byte(label+"\x00"), 0)
		if errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return err
	})
}

// SELinux reports a kernel that enforces or logs SELinux's rules.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// maxDepth bounds what is walked: each level holds a descriptor.
const maxDepth = 512

// eachBelow calls do for f and all that is below it, by descriptors that only
// name a file (O_PATH).
func eachBelow(f *os.File, do func(fd int, st *unix.Stat_t) error) error {
	defer runtime.KeepAlive(f)
	return each(int(f.Fd()), f.Name(), 0, do)
}

func each(fd int, name string, depth int, do func(int, *unix.Stat_t) error) error {
	fail := func(op string, err error) error { return &os.PathError{Op: op, Path: name, Err: err} }
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail("stat", err)
	}
	if err := do(fd, &st); err != nil {
		return fail("change", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("%s: more than %d directories lie in each other", name, maxDepth)
	}
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	dir := os.NewFile(uintptr(list), name)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := eachEntry(list, n, depth, do); err != nil {
			return err
		}
	}
	return nil
}

func eachEntry(dir int, name string, depth int, do func(int, *unix.Stat_t) error) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // another step that shares the directory has removed it
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return each(fd, name, depth+1, do)
}
