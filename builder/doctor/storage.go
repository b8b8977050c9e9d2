package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/overlay"
	"github.com/stratabuild/strata/builder/store"
)

// overlays mounts an overlay on the store's file system, as steps do, and
// each option that some hosts lack.
func (x *examiner) overlays(context.Context) {
	if !slices.Contains(strings.Fields(x.read("/proc/filesystems")), "overlay") {
		// The module may be loaded by the first mount.
		x.fact("overlay.module", "module", "not loaded yet")
	}
	dir, where := x.scratchDir()
	if dir == "" {
		x.scratch = where
		x.add("overlay.mount", "mount", Lesser, "not tried: "+where, "a store that can be written: --root DIRECTORY")
		return
	}
	// Overlay's work directory holds one of mode 0 afterwards.
	defer removeTree(dir)
	x.fact("overlay.tried", "tried on", "%s (%s)", where, x.fileSystem(where))
	userxattr := x.o.Namespaces.Rootless
	err := x.tryOverlay(dir, userxattr)
	if err != nil {
		x.overlay = firstLine(err.Error())
		x.add("overlay.mount", "mount", Lesser, x.overlay, x.overlayRemedy(where))
		return
	}
	x.add("overlay.mount", "mount", OK, "works, volatile and without the mount being seen by anybody", "")
	if userxattr {
		x.add("overlay.userxattr", "userxattr", OK, "works", "")
	} else if err := x.tryOverlay(dir, true); err != nil {
		x.add("overlay.userxattr", "userxattr", Lesser, firstLine(err.Error()), "Linux 5.11, and a file system with user attributes: rootless builds need it")
	} else {
		x.add("overlay.userxattr", "userxattr", OK, "works", "")
	}
	if err := x.lowerPlus(dir); err != nil {
		x.add("overlay.lowerdir+", "lowerdir+", Lesser, fmt.Sprintf("not known: %v", err), "Linux 6.8: images may have as many layers as the kernel takes")
	} else {
		x.add("overlay.lowerdir+", "lowerdir+", OK, "works: up to 499 layers", "")
	}
}

// scratchDir makes a directory for trying things on the file system of the
// store, or says why it cannot.
func (x *examiner) scratchDir() (dir, where string) {
	if x.choiceErr != nil {
		return "", "no store is chosen"
	}
	where = existing(x.choice.GraphRoot)
	dir, err := os.MkdirTemp(where, "strata-doctor-")
	if err != nil {
		return "", err.Error()
	}
	return dir, where
}

// tryOverlay mounts an overlay, writes to it, and removes a file of a lower
// directory, which is what leaves a mark in the upper one.
func tryOverlay(dir string, userxattr bool) error {
	base, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return err
	}
	var dirs [4]*os.File
	for i, name := range []string{"upper", "work", "lower1", "lower2"} {
		path := filepath.Join(base, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if i > 1 {
			if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
				return err
			}
		}
		if dirs[i], err = os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return err
		}
		defer dirs[i].Close()
	}
	root, err := overlay.Mount(overlay.Options{Upper: dirs[0], Work: dirs[1], Lowers: dirs[2:], UserXattr: userxattr})
	if err != nil {
		return err
	}
	defer root.Close()
	fd := int(root.Fd())
	if err := unix.Mkdirat(fd, "made", 0o700); err != nil {
		return fmt.Errorf("overlay: make a directory: %w", err)
	}
	if err := unix.Unlinkat(fd, "file", 0); err != nil {
		return fmt.Errorf("overlay: remove a file of a lower layer: %w", err)
	}
	return nil
}

// lowerPlus asks whether lower directories can be given one by one.
func lowerPlus(dir string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// Before Linux 6.5 overlay takes any string now and refuses it when it is
	// mounted, but no descriptor at all.
	if err := unix.FsconfigSetFd(fs, "lowerdir+", int(f.Fd())); errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return unix.FsconfigSetString(fs, "lowerdir+", dir)
}

func removeTree(dir string) {
	parent, err := os.OpenFile(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return
	}
	defer parent.Close()
	_, _ = store.RemoveTree(parent, filepath.Base(dir))
}

func (x *examiner) overlayRemedy(where string) string {
	switch x.fileSystem(where) {
	case "nfs", "ramfs", "overlay", "fuse", "smb2", "9p":
		return "--root on a local file system (ext4, xfs, btrfs, tmpfs)"
	}
	return "Linux 5.11 with user namespaces, or as root; --storage-driver vfs copies files instead"
}

func (x *examiner) storage(context.Context) {
	if x.choiceErr != nil {
		x.add("storage.root", "store", Missing, firstLine(x.choiceErr.Error()), "--root DIRECTORY --runroot DIRECTORY")
		return
	}
	c := x.choice
	where := existing(c.GraphRoot)
	kind := x.fileSystem(where)
	root := x.add("storage.root", "store", OK, fmt.Sprintf("%s (%s)", c.GraphRoot, kind), "").
		with("path", c.GraphRoot).with("file_system", kind)
	switch err := x.access(where, unix.W_OK|unix.X_OK); {
	case err != nil && where == c.GraphRoot:
		root.State, root.Text, root.Remedy = Missing, fmt.Sprintf("%s cannot be written: %v", c.GraphRoot, err), "--root DIRECTORY, or make it this user's"
	case err != nil:
		root.State, root.Text, root.Remedy = Missing, fmt.Sprintf("%s cannot be made: %s: %v", c.GraphRoot, where, err), "--root DIRECTORY, or HOME"
	case x.scratch != "" && where != c.GraphRoot:
		// Root may write everywhere, says access(2); /proc and its like differ.
		root.State, root.Text, root.Remedy = Missing, fmt.Sprintf("%s cannot be made: %s", c.GraphRoot, x.scratch), "--root DIRECTORY"
	case c.Note != "":
		root.State, root.Text = Lesser, c.Note
		if i := strings.LastIndex(c.Note, ": "); i > 0 { // what follows is the remedy
			root.Text, root.Remedy = c.Note[:i], c.Note[i+2:]
		}
	}
	run := x.fact("storage.runroot", "volatile state", "%s", c.RunRoot).with("path", c.RunRoot)
	if at := existing(c.RunRoot); x.access(at, unix.W_OK|unix.X_OK) != nil {
		run.State, run.Text, run.Remedy = Missing, fmt.Sprintf("%s cannot be made: %s cannot be written", c.RunRoot, at), "set XDG_RUNTIME_DIR, or --runroot DIRECTORY"
	}
	x.space(where)
	x.driver()
	x.sharing(where)
	tmp := os.Getenv("TMPDIR")
	if tmp == "" {
		tmp = "/var/tmp"
	}
	if x.access(tmp, unix.W_OK|unix.X_OK) != nil {
		x.add("storage.tmp", "temporary files", Lesser, tmp+" cannot be written", "set TMPDIR to a directory of yours")
	}
}

// low are the amounts below which builds soon fail.
const (
	lowBytes  = 1 << 30
	lowInodes = 10000
)

func (x *examiner) space(where string) {
	var st unix.Statfs_t
	if err := x.statfs(where, &st); err != nil {
		x.add("storage.space", "space", Lesser, fmt.Sprintf("%s: %v", where, err), "--root on a file system that answers")
		return
	}
	free := st.Bavail * uint64(st.Bsize)
	text := units.HumanSize(float64(free)) + " free"
	state, remedy := OK, ""
	if free < lowBytes {
		state, remedy = Lesser, "strata prune"
	}
	f := x.add("storage.space", "space", state, text, remedy).with("free_bytes", free)
	if st.Files > 0 {
		f.Text += fmt.Sprintf(", %d inodes free", st.Ffree)
		f.with("free_inodes", st.Ffree)
		if st.Ffree < lowInodes {
			f.State, f.Remedy = Lesser, "strata prune, or a file system with more inodes"
		}
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		x.add("storage.readonly", "read-only", Missing, where+" is on a read-only file system", "mount -o remount,rw, or --root DIRECTORY")
	}
}

// driver says which storage driver is taken, and whether layers are adopted.
func (x *examiner) driver() {
	c := x.choice
	name := c.Driver
	if name == "" {
		name = "overlay"
		if x.overlay != "" {
			name = "vfs"
		}
	}
	f := x.add("storage.driver", "driver", OK, name, "").with("driver", name)
	why := c.Blocked
	switch {
	case name != "overlay":
		f.State, f.Remedy = Lesser, c.Faster
		if f.Remedy == "" && x.overlay != "" {
			f.Remedy = "what makes overlay mounts possible, above"
		}
		why = "storage driver " + name
	case x.overlay != "":
		f.State, f.Text, f.Remedy = Missing, "overlay, which cannot be mounted", "--storage-driver vfs"
		return
	}
	if why != "" {
		remedy := "a store without it: --root DIRECTORY --storage-driver overlay"
		if name != "overlay" {
			remedy = f.Remedy
		}
		x.add("storage.zero_copy", "layers", Lesser, "are copied: "+why, remedy)
		return
	}
	x.add("storage.zero_copy", "layers", OK, "are adopted without a copy", "")
}

// sharing tries whether files can share their extents (FICLONE, Linux 4.5).
func (x *examiner) sharing(where string) {
	const id, name = "storage.reflink", "reflinks"
	open := func() (*os.File, error) {
		return os.OpenFile(where, unix.O_TMPFILE|os.O_RDWR, 0o600)
	}
	a, err := open()
	if err != nil {
		x.add(id, name, Neutral, fmt.Sprintf("not tried: %v", err), "")
		return
	}
	defer a.Close()
	b, err := open()
	if err != nil {
		x.add(id, name, Neutral, fmt.Sprintf("not tried: %v", err), "")
		return
	}
	defer b.Close()
	if _, err = a.Write(make([]byte, 64<<10)); err == nil {
		err = unix.IoctlFileClone(int(b.Fd()), int(a.Fd()))
	}
	switch {
	case err == nil:
		x.add(id, name, OK, "work: COPY and commit share what is on the disk already", "")
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		x.add(id, name, Lesser, "the file system "+x.fileSystem(where)+" has none", "a store on xfs or btrfs")
	default:
		x.add(id, name, Lesser, err.Error(), "a store on xfs or btrfs")
	}
}

// fileSystemName names a type of file systems (statfs(2)).
func fileSystemName(magic int64) string {
	for _, t := range []struct {
		magic int64
		name  string
	}{
		{unix.EXT4_SUPER_MAGIC, "ext4"}, {unix.XFS_SUPER_MAGIC, "xfs"}, {unix.BTRFS_SUPER_MAGIC, "btrfs"},
		{unix.TMPFS_MAGIC, "tmpfs"}, {unix.OVERLAYFS_SUPER_MAGIC, "overlay"}, {unix.NFS_SUPER_MAGIC, "nfs"},
		{unix.RAMFS_MAGIC, "ramfs"}, {unix.FUSE_SUPER_MAGIC, "fuse"}, {unix.V9FS_MAGIC, "9p"}, {0x2fc12fc1, "zfs"},
		{unix.F2FS_SUPER_MAGIC, "f2fs"}, {0xfe534d42, "smb2"}, {unix.SQUASHFS_MAGIC, "squashfs"},
	} {
		if magic == t.magic {
			return t.name
		}
	}
	return fmt.Sprintf("type %#x", magic)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
