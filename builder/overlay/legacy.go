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
	names := make([]string, len(o.Lowers))
	for i, l := range o.Lowers {
		names[i] = strconv.Itoa(int(l.Fd()))
	}
	opts := []string{"lowerdir=" + strings.Join(names, ":")}
	if o.Upper != nil {
		opts = append(opts, "upperdir="+strconv.Itoa(int(o.Upper.Fd())), "workdir="+strconv.Itoa(int(o.Work.Fd())), "volatile")
	}
	for _, kv := range baseOptions {
		opts = append(opts, kv[0]+"="+kv[1])
	}
	if o.UserXattr {
		opts = append(opts, "userxattr")
	}
	data := strings.Join(opts, ",")
	if len(data) >= os.Getpagesize() {
		return nil, fmt.Errorf("overlay mount: %d layers do not fit into the options of mount(2) on this kernel: flatten the image with --squash: %w", len(o.Lowers), define.ErrInvalid)
	}
	flags := uintptr(0)
	if o.Upper == nil {
		flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	}
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread, whose namespace and working directory
		// are not the process's, ends with the goroutine.
		runtime.LockOSThread()
		fd, err := mountPrivately(flags, data)
		done <- result{fd, err}
	}()
	r := <-done
	runtime.KeepAlive(o)
	if r.err != nil {
		return nil, r.err
	}
	return os.NewFile(uintptr(r.fd), "overlay"), nil
}

// mountPrivately mounts over /proc in a new mount namespace, which is as good
// as any directory, since nobody will see it.
func mountPrivately(flags uintptr, data string) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, explain("unshare", err, "")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, explain("making mounts private", err, "")
	}
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return -1, fmt.Errorf("overlay mount: %w: /proc must be mounted", err)
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
