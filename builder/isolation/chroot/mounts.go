package chroot

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// mounter builds the step's tree of mounts below rootFd, in a namespace that
// this process has to itself.
type mounter struct {
	j    *job
	pts  *os.File // the step's devpts
	null *os.File // the host's /dev/null, to mask files with
}

// mountAll attaches the root and everything on it.
func mountAll(j *job) (*mounter, error) {
	m := &mounter{j: j}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("private mount namespace: %w", err)
	}
	var err error
	if m.null, err = openTree(unix.AT_FDCWD, "/dev/null", cloneFlags); err != nil {
		return nil, fmt.Errorf("/dev/null of the host: %w", err)
	}
	// Over the host's root, where pivot_root wants a mount point.
	if err := unix.MoveMount(rootFd, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("step's root: %w", err)
	}
	for _, mnt := range j.Spec.Mounts {
		if err := m.mount(mnt); err != nil {
			return nil, fmt.Errorf("mount %s: %w", mnt.Destination, err)
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(j.Trees)) {
		if slices.ContainsFunc(j.Spec.Mounts, func(s specs.Mount) bool { return s.Destination == dest }) {
			continue
		}
		if err := m.cover(dest, j.Trees[dest]); err != nil {
			return nil, fmt.Errorf("file %s: %w", dest, err)
		}
	}
	for _, p := range j.Spec.Linux.ReadonlyPaths {
		if err := m.readOnly(p); err != nil {
			return nil, fmt.Errorf("read-only %s: %w", p, err)
		}
	}
	for _, p := range j.Spec.Linux.MaskedPaths {
		if err := m.mask(p); err != nil {
			return nil, fmt.Errorf("masked %s: %w", p, err)
		}
	}
	return m, nil
}

// resolve opens a mount point in the root.
func (m *mounter) resolve(unsafePath string) (*os.File, error) {
	fd, err := unix.Openat2(rootFd, unsafePath, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), unsafePath), nil
}

// attach mounts tree on dest.
func (m *mounter) attach(tree int, dest string) error {
	at, err := m.resolve(dest)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := checkPlace(at, dest); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// checkPlace refuses a mount point that links of the root have led into what
// confines the step (CVE-2025-52881).
func checkPlace(at *os.File, dest string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(at.Fd()), &st); err != nil {
		return err
	}
	if st.Type == unix.PROC_SUPER_MAGIC || st.Type == unix.SYSFS_MAGIC && !strings.HasPrefix(dest, "/sys/") {
		return fmt.Errorf("leads into /proc or /sys by a link of the root: %w", define.ErrEscape)
	}
	return nil
}

// cover mounts tree on dest; a link there is itself the mount point.
func (m *mounter) cover(dest string, tree int) error {
	dir, err := m.resolve(path.Dir(dest))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := checkPlace(dir, dest); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", int(dir.Fd()), path.Base(dest), unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// mount makes one of the spec's mounts. The kernel's own that the host
// refuses are left out.
func (m *mounter) mount(s specs.Mount) error {
	if fd, ok := m.j.Trees[s.Destination]; ok {
		return m.attach(fd, s.Destination)
	}
	var tree *os.File
	var err error
	switch s.Type {
	case "proc":
		tree, err = procTree(s)
	case "sysfs":
		if tree, err = newTree("sysfs", s); err != nil {
			tree, err = hostTree("/sys", s)
		}
	case "cgroup", "cgroup2":
		tree, err = hostTree("/sys/fs/cgroup", s)
	case "tmpfs":
		tree, err = newTree("tmpfs", s)
		if err == nil && s.Destination == "/dev" {
			defer tree.Close()
			// Nodes that the step makes there are dead: ours are mounts.
			if err := setAttributes(tree, unix.MOUNT_ATTR_NODEV); err != nil {
				return err
			}
			return m.devices(tree)
		}
	case "devpts":
		tree, err = devptsTree(s)
		m.pts = tree
		if err == nil {
			return m.attach(int(tree.Fd()), s.Destination) // stays open for ptmx
		}
	default:
		tree, err = newTree(s.Type, s)
	}
	if err != nil {
		if refused(err) {
			return nil
		}
		return err
	}
	defer tree.Close()
	err = m.attach(int(tree.Fd()), s.Destination)
	if errors.Is(err, unix.ENOENT) && strings.HasPrefix(s.Destination, "/sys/") {
		return nil // no such place in the sysfs that we got
	}
	return err
}

// refused reports that a host does not let us make a mount, or has not the
// file system.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// procTree is a proc of our pid namespace that shows only what the reader
// may trace (Linux 5.8), or the host's own.
func procTree(s specs.Mount) (*os.File, error) {
	hidden := s
	hidden.Options = append([]string{"hidepid=ptraceable"}, s.Options...)
	if tree, err := newTree("proc", hidden); err == nil {
		return tree, nil
	}
	return hostTree("/proc", s)
}

// hostTree is a copy of a tree of the host's with s's attributes.
func hostTree(name string, s specs.Mount) (*os.File, error) {
	tree, err := openTree(unix.AT_FDCWD, name, cloneFlags)
	if err != nil {
		return nil, err
	}
	if err := setAttributes(tree, attributes(s.Options)); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// devptsTree leaves out the group where it is not mapped.
func devptsTree(s specs.Mount) (*os.File, error) {
	tree, err := newTree("devpts", s)
	if errors.Is(err, unix.EINVAL) {
		s.Options = slices.DeleteFunc(slices.Clone(s.Options), func(o string) bool { return strings.HasPrefix(o, "gid=") })
		tree, err = newTree("devpts", s)
	}
	return tree, err
}

// newTree makes a file system that is mounted nowhere yet.
func newTree(kind string, s specs.Mount) (*os.File, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	attr := int(attributes(s.Options))
	for _, o := range s.Options {
		key, value, hasValue := strings.Cut(o, "=")
		switch {
		case hasValue:
			err = unix.FsconfigSetString(fs, key, value)
		case key == "newinstance": // always so since Linux 4.7
		case key == "strictatime":
			attr |= unix.MOUNT_ATTR_STRICTATIME
		case key == "ro" && kind == "sysfs":
			// The attribute of the mount is enough.
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", o, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(mnt), kind), nil
}

// devices fills the step's /dev and mounts it. It is ours until then: names
// in it are safe.
func (m *mounter) devices(dev *os.File) error {
	fd := int(dev.Fd())
	for _, d := range [...]string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(fd, d, 0o755); err != nil {
			return fmt.Errorf("/dev/%s: %w", d, err)
		}
	}
	for _, l := range [...][2]string{
		{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
	} {
		if err := unix.Symlinkat(l[1], fd, l[0]); err != nil {
			return fmt.Errorf("/dev/%s: %w", l[0], err)
		}
	}
	nodes := map[string]*os.File{}
	for _, d := range devices {
		node, err := openTree(unix.AT_FDCWD, "/dev/"+d.name, cloneFlags)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("/dev/%s of the host: %w", d.name, err)
		}
		defer node.Close()
		nodes[d.name] = node
		// The inode is the host's: read-only keeps its mode and owner from the
		// step, and says nothing about writing to a device.
		if err := setAttributes(node, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
		if err := makeFile(fd, d.name); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	// What the user mounts below /dev needs a place.
	for _, s := range m.j.Spec.Mounts {
		if err := m.place(dev, s); err != nil {
			return fmt.Errorf("%s: %w", s.Destination, err)
		}
	}
	if err := m.attach(fd, "/dev"); err != nil {
		return err
	}
	for name, node := range nodes {
		if err := unix.MoveMount(int(node.Fd()), "", fd, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
	}
	return nil
}

// place makes the mount point of s in dev if it belongs there.
func (m *mounter) place(dev *os.File, s specs.Mount) error {
	name, ok := strings.CutPrefix(s.Destination, "/dev/")
	tree, isTree := m.j.Trees[s.Destination]
	if !ok || !isTree {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return err
	}
	at := int(dev.Fd())
	parts := strings.Split(name, "/")
	for i := range parts {
		p := strings.Join(parts[:i+1], "/")
		var err error
		if i == len(parts)-1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = makeFile(at, p)
		} else {
			err = unix.Mkdirat(at, p, 0o755)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}

func makeFile(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// readOnly makes what exists at p read-only.
func (m *mounter) readOnly(p string) error {
	at, err := m.resolve(p)
	if err != nil {
		return ignoreMissing(err)
	}
	defer at.Close()
	tree, err := openTree(int(at.Fd()), "", cloneFlags|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := setAttributes(tree, unix.MOUNT_ATTR_RDONLY); err != nil {
		return err
	}
	return unix.MoveMount(int(tree.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// mask hides what exists at p: a directory behind an empty one, anything else
// behind the host's /dev/null (the root's own may be something else,
// CVE-2025-31133).
func (m *mounter) mask(p string) error {
	at, err := m.resolve(p)
	if err != nil {
		return ignoreMissing(err)
	}
	defer at.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return err
	}
	var over *os.File
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		over, err = newTree("tmpfs", specs.Mount{Options: []string{"ro", "nosuid", "nodev", "noexec", "size=0", "nr_inodes=2", "mode=0755"}})
	} else {
		over, err = openTree(int(m.null.Fd()), "", cloneFlags|unix.AT_EMPTY_PATH)
		if errors.Is(err, unix.EINVAL) { // a detached tree, before Linux 6.15
			over, err = openTree(unix.AT_FDCWD, "/dev/null", cloneFlags)
		}
	}
	if err != nil {
		return err
	}
	defer over.Close()
	if err := setAttributes(over, unix.MOUNT_ATTR_RDONLY); err != nil {
		return err
	}
	return unix.MoveMount(int(over.Fd()), "", int(at.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	return err
}

// openPtmx opens the multiplexer of the step's devpts.
func (m *mounter) openPtmx() (int, error) {
	if m.pts == nil {
		return -1, errors.New("terminal: this host allows no devpts")
	}
	fd, err := unix.Openat(int(m.pts.Fd()), "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("terminal: /dev/pts/ptmx: %w", err)
	}
	return fd, nil
}
