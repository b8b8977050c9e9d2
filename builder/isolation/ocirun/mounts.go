package ocirun

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// trees are the detached mounts that a step is made of.
type trees struct {
	root    int
	files   map[string]int // by destination
	volumes []volume
	cgroup  int // what to show as /sys/fs/cgroup, or -1
	devices map[string]int
}

type volume struct {
	destination string
	tree        int
	dir         bool
	options     []string // that describe tree's attributes
}

// cloneTrees clones everything that the step mounts, in the namespace that it
// belongs to.
func cloneTrees(s *isolation.Step, w *work) (*trees, error) {
	t := &trees{root: -1, files: map[string]int{}, cgroup: -1}
	root, err := cloneRoot(s.Root)
	if err != nil {
		return t, err
	}
	t.root = root
	// Device nodes of the image stay dead; those of /dev are the runtime's.
	if err := setAttributes(root, unix.MOUNT_ATTR_NODEV); err != nil {
		return t, fmt.Errorf("step's root: %w", err)
	}
	if err := isolation.Executable(root); err != nil {
		return t, err
	}
	for _, m := range s.Spec.Mounts {
		if m.Type != "bind" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			continue
		}
		v, err := cloneVolume(m, s.Spec.Trees[m.Destination])
		if err != nil {
			return t, err
		}
		t.volumes = append(t.volumes, v)
	}
	return t, t.cloneFiles(s.Spec.Files, w)
}

func (t *trees) close() {
	closeFd := func(fd int) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	closeFd(t.root)
	closeFd(t.cgroup)
	for _, m := range []map[string]int{t.files, t.devices} {
		for _, fd := range m {
			closeFd(fd)
		}
	}
	for _, v := range t.volumes {
		closeFd(v.tree)
	}
}

const cloneFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE | unix.AT_NO_AUTOMOUNT

// cloneRoot returns a detached mount of root. Before Linux 6.15 a detached
// mount could not be cloned: there it is moved itself, which leaves the
// caller's descriptor usable for everything but another step.
func cloneRoot(root *os.File) (int, error) {
	fd, err := openTree(int(root.Fd()), "", cloneFlags|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return -1, fmt.Errorf("step's root: clone of the mount: %w", err)
	}
	return fd, nil
}

func cloneVolume(m specs.Mount, tree *os.File) (v volume, err error) {
	v = volume{destination: m.Destination}
	if tree != nil {
		if v.tree, err = cloneRoot(tree); err != nil {
			return v, fmt.Errorf("volume %s: %w", m.Destination, err)
		}
	} else if v.tree, err = openTree(unix.AT_FDCWD, m.Source, isolation.CloneFlags(m.Options)); err != nil {
		return v, fmt.Errorf("volume %s: source %s: %w", m.Destination, m.Source, isolation.ExplainClone(err, m))
	}
	var attr uint64
	for _, o := range m.Options {
		attr |= attributes[o]
	}
	var st unix.Stat_t
	if err = unix.Fstat(v.tree, &st); err == nil {
		v.dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
		err = setAttributes(v.tree, attr)
	}
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		// A runtime would follow it on the host.
		err = fmt.Errorf("is a symbolic link, which OCI runtimes cannot mount; use the embedded driver: %w", define.ErrUnsupported)
	}
	if err == nil {
		v.options, err = describe(v.tree, m.Options)
	}
	if err != nil {
		unix.Close(v.tree)
		return v, fmt.Errorf("volume %s: %w", m.Destination, err)
	}
	return v, nil
}

// attributes translates mount options.
var attributes = map[string]uint64{
	"ro": unix.MOUNT_ATTR_RDONLY, "rro": unix.MOUNT_ATTR_RDONLY, "nosuid": unix.MOUNT_ATTR_NOSUID,
	"nodev": unix.MOUNT_ATTR_NODEV, "noexec": unix.MOUNT_ATTR_NOEXEC,
}

// statfsOptions are the flags of statfs(2) that mount options set.
var statfsOptions = [...]struct {
	flag int64
	name string
}{
	{unix.ST_RDONLY, "ro"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"},
	{unix.ST_NOATIME, "noatime"}, {unix.ST_NODIRATIME, "nodiratime"}, {unix.ST_RELATIME, "relatime"},
}

// describe returns the options of a bind mount of tree, all that it has: runc
// would keep what is not said, crun clears it, and in a user namespace
// neither may clear what was there before.
func describe(tree int, asked []string) ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(tree, &st); err != nil {
		return nil, err
	}
	// The tree is in no peer group: a shared one begins with the step.
	options := []string{"rbind", "rprivate"}
	for _, o := range asked {
		if o == "shared" || o == "rshared" {
			options[1] = o
		}
	}
	for _, o := range statfsOptions {
		if int64(st.Flags)&o.flag != 0 {
			options = append(options, o.name)
		}
	}
	return options, nil
}

// cloneFiles writes the step's files and makes mounts of them.
func (t *trees) cloneFiles(files map[string][]byte, w *work) error {
	for dest, content := range files {
		p := w.path("files", strconv.Itoa(len(t.files)))
		if err := os.WriteFile(p, content, 0o644); err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		// Not what the umask left.
		if err := os.Chmod(p, 0o644); err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		fd, err := openTree(unix.AT_FDCWD, p, cloneFlags)
		if err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
		t.files[dest] = fd
		if err := setAttributes(fd, unix.MOUNT_ATTR_NODEV); err != nil {
			return fmt.Errorf("file %s: %w", dest, err)
		}
	}
	return nil
}

// setAttributes sets attributes on a detached tree, all of it, and takes it
// out of its peer groups.
func setAttributes(tree int, set uint64) error {
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: set, Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("attributes of the mount (needs Linux 5.12): %w", err)
	}
	return nil
}

// source is what a bind mount of the bundle's is made from.
type source struct {
	path    string
	options []string
}

// cloneDevices makes read-only mounts of the host's device nodes. In a user
// namespace runtimes bind them into the step: mode and owner of the host's
// inodes must be out of its reach, while writing to a device asks for neither.
func (t *trees) cloneDevices() error {
	t.devices = map[string]int{}
	for _, name := range [...]string{"null", "zero", "full", "random", "urandom", "tty"} {
		fd, err := openTree(unix.AT_FDCWD, "/dev/"+name, cloneFlags)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("/dev/%s of the host: %w", name, err)
		}
		t.devices[name] = fd
		if err := setAttributes(fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return fmt.Errorf("/dev/%s of the host: %w", name, err)
		}
	}
	return nil
}

// attach puts the trees into the current mount namespace and returns the
// volumes' sources by destination.
func (t *trees) attach(w *work) (map[string]source, error) {
	if t.cgroup >= 0 {
		if err := moveMount(t.cgroup, unix.AT_FDCWD, "/sys/fs/cgroup"); err != nil {
			return nil, fmt.Errorf("cgroup hierarchy: %w", err)
		}
	}
	for name, fd := range t.devices {
		if err := moveMount(fd, unix.AT_FDCWD, "/dev/"+name); err != nil {
			return nil, fmt.Errorf("/dev/%s: %w", name, err)
		}
	}
	if err := moveMount(t.root, unix.AT_FDCWD, w.path("rootfs")); err != nil {
		return nil, fmt.Errorf("step's root: %w", err)
	}
	for dest, tree := range t.files {
		if err := coverFile(t.root, dest, tree); err != nil {
			return nil, fmt.Errorf("file %s: %w", dest, err)
		}
	}
	sources := make(map[string]source, len(t.volumes))
	for i, v := range t.volumes {
		p, err := w.stub(i, v.dir)
		if err == nil {
			err = moveMount(v.tree, unix.AT_FDCWD, p)
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.destination, err)
		}
		sources[v.destination] = source{p, v.options}
	}
	return sources, nil
}

// coverFile mounts tree on dest in root. A link at dest is itself covered:
// following it, runtimes make what it names.
func coverFile(root int, unsafeDest string, tree int) error {
	dir, err := unix.Openat2(root, path.Dir(unsafeDest), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return moveMount(tree, dir, path.Base(unsafeDest))
}

func openTree(dir int, name string, flags uint) (int, error) {
	for {
		fd, err := unix.OpenTree(dir, name, flags)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// moveMount attaches a detached tree; a symbolic link at the target's last
// component is not followed.
func moveMount(tree, dir int, name string) error {
	return unix.MoveMount(tree, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// cloneUnified returns the version 2 hierarchy of a host that has both, to be
// shown to the runtime alone, or -1.
func cloneUnified() int {
	if !hybrid() {
		return -1
	}
	fd, err := openTree(unix.AT_FDCWD, "/sys/fs/cgroup/unified", cloneFlags)
	if err != nil {
		return -1 // a luxury
	}
	return fd
}
