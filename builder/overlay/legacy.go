package overlay

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// mountLegacy mounts with mount(2), whose options are one page: layers are
// named by the numbers of their descriptors, relative to /proc/self/fd. It
// works on a thread of its own, in a mount namespace of its own, which both
// end with it; a detached copy of the mount remains.
func mountLegacy(o Options) (*os.File, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread, whose namespace and working directory
		// are not the process's, ends with the goroutine.
		runtime.LockOSThread()
		fd, err := mountPrivately(o)
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	return os.NewFile(uintptr(r.fd), "overlay"), nil
}

// mountPrivately mounts over /proc in a new mount namespace, which is as good
// as any directory, since nobody will see it.
func mountPrivately(o Options) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, explain("unshare", err, "")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, explain("making mounts private", err, "")
	}
	o, opened, err := reopenAll(o)
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	if err != nil {
		return -1, err
	}
	return mountHere(o)
}

// mountHere mounts directories of this thread's mount namespace, which is its
// own, as its file system state is.
func mountHere(o Options) (int, error) {
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return -1, fmt.Errorf("overlay mount: %w: /proc must be mounted", err)
	}
	data, err := legacyOptions(o)
	if err != nil {
		return -1, err
	}
	flags := uintptr(0)
	if o.Upper == nil {
		flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	}
	if err := unix.Mount("overlay", "/proc", "overlay", flags, data); err != nil {
		return -1, explain("mount", err, "")
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, explain("open_tree", err, "")
	}
	return fd, nil
}

// reopenAll opens each directory of o again: overlay takes those of the
// mounter's own namespace only. They are the caller's to close.
func reopenAll(o Options) (_ Options, opened []*os.File, err error) {
	again := func(dir *os.File) *os.File {
		if dir == nil || err != nil {
			return nil
		}
		var fd int
		if fd, err = reopen(int(dir.Fd())); err != nil {
			return nil
		}
		f := os.NewFile(uintptr(fd), dir.Name())
		opened = append(opened, f)
		return f
	}
	lowers := make([]*os.File, len(o.Lowers))
	for i, l := range o.Lowers {
		lowers[i] = again(l)
	}
	o.Lowers, o.Upper, o.Work = lowers, again(o.Upper), again(o.Work)
	return o, opened, err
}

// legacyOptions writes the options of mount(2).
func legacyOptions(o Options) (string, error) {
	name := func(dir *os.File) string { return strconv.Itoa(int(dir.Fd())) }
	names := make([]string, len(o.Lowers))
	for i, l := range o.Lowers {
		names[i] = name(l)
	}
	opts := []string{"lowerdir=" + strings.Join(names, ":")}
	if o.Upper != nil {
		opts = append(opts, "upperdir="+name(o.Upper), "workdir="+name(o.Work), "volatile")
	}
	for _, kv := range baseOptions {
		opts = append(opts, kv[0]+"="+kv[1])
	}
	if o.UserXattr {
		opts = append(opts, "userxattr")
	}
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return "", fmt.Errorf("overlay mount: %d layers do not fit into the options of mount(2) on this kernel: flatten the image with --squash: %w", len(o.Lowers), define.ErrInvalid)
	}
	return data, nil
}

// reopen opens the directory of a descriptor by its path, and makes sure that
// it is the same: it may be renamed at any time.
func reopen(fd int) (int, error) {
	var want, got unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return -1, err
	}
	buf := make([]byte, unix.PathMax)
	for range 10 {
		n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
		if err != nil {
			return -1, fmt.Errorf("overlay mount: finding a layer's directory: %w", err)
		}
		again, err := unix.Open(string(buf[:n]), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if unix.Fstat(again, &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
			return again, nil
		}
		unix.Close(again)
	}
	return -1, fmt.Errorf("overlay mount: the directory %s is not to be found by its path, which this kernel needs: %w", buf[:clen(buf)], define.ErrUnsupported)
}

func clen(b []byte) int {
	for i, c := range b {
		if c == 0 {
			return i
		}
	}
	return len(b)
}
