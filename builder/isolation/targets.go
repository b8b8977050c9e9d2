package isolation

import (
	"errors"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/copier"
)

// Target is a mount point.
type Target struct {
	Path string // absolute and clean, unsafe: resolve it in the root
	Dir  bool
	// Cover says that a symbolic link at the path is itself the mount point
	// (Spec.Files); for others it is followed inside the root.
	Cover bool
}

// Targets lists the paths that must exist in the root for s to be mounted,
// each with whether it is a directory, in the order of their depth. Mount
// points below other mounts are not the root's and are not listed.
func (s *Spec) Targets() []Target {
	var out []Target
	for _, m := range s.Mounts {
		if !s.below(m.Destination) {
			out = append(out, Target{Path: m.Destination, Dir: s.isDir(m)})
		}
	}
	for file := range s.Files {
		if !s.below(file) {
			out = append(out, Target{Path: file, Cover: true})
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i].Path, out[j].Path
		if n, m := strings.Count(a, "/"), strings.Count(b, "/"); n != m {
			return n < m
		}
		return a < b
	})
	return out
}

// below reports whether a mount covers a directory above p.
func (s *Spec) below(p string) bool {
	for _, m := range s.Mounts {
		if m.Destination != p && strings.HasPrefix(p, m.Destination+"/") {
			return true
		}
	}
	return false
}

// isDir reports whether what m mounts is a directory. A source that cannot
// be looked at is reported as one: mounting it says what is wrong.
func (s *Spec) isDir(m specs.Mount) bool {
	if m.Type != "bind" {
		return true
	}
	var st unix.Stat_t
	var err error
	if tree := s.Trees[m.Destination]; tree != nil {
		err = unix.Fstat(int(tree.Fd()), &st)
	} else {
		err = unix.Stat(m.Source, &st)
	}
	return err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Skeleton makes the targets below dir, a directory of ours that nobody else
// writes to, for use as the lowest layer of a step's overlay: directories
// with mode 0755, empty files with mode 0644, owned by root, of 1970. What
// exists already is left alone.
func Skeleton(dir *os.File, targets []Target) error {
	for _, t := range targets {
		if err := skeletonTarget(int(dir.Fd()), t); err != nil {
			return fmt.Errorf("mount point %s: %w", t.Path, err)
		}
	}
	// Last, since making an entry changes the times of what holds it.
	for _, t := range targets {
		for p := strings.TrimPrefix(path.Clean(t.Path), "/"); p != "." && p != ""; p = path.Dir(p) {
			if err := epoch(int(dir.Fd()), p); err != nil {
				return fmt.Errorf("mount point %s: %w", t.Path, err)
			}
		}
	}
	return nil
}

func skeletonTarget(dir int, t Target) error {
	parts := strings.Split(strings.Trim(path.Clean("/"+t.Path), "/"), "/")
	for i := range parts {
		p := strings.Join(parts[:i+1], "/")
		var err error
		mode := uint32(0o755)
		if i == len(parts)-1 && !t.Dir {
			mode = 0o644
			var fd int
			if fd, err = unix.Openat(dir, p, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, mode); err == nil {
				unix.Close(fd)
			}
		} else {
			err = unix.Mkdirat(dir, p, mode)
		}
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return err
		}
		// The umask must not be seen in the step.
		if err := unix.Fchmodat(dir, p, mode, 0); err != nil {
			return err
		}
	}
	return nil
}

func epoch(dir int, p string) error {
	return unix.UtimesNanoAt(dir, p, []unix.Timespec{{}, {}}, unix.AT_SYMLINK_NOFOLLOW)
}

// MakeTargets makes the targets that are missing in root, a step's root whose
// content is hostile, and returns their paths and those of the directories
// made above them, so that they can be left out of the layer. Every name is
// resolved inside root. A target that exists is left as it is, whatever it
// is: mounting on it says what is wrong.
func MakeTargets(root *os.File, targets []Target) (made []string, err error) {
	var r *copier.Root
	for _, t := range targets {
		ok, err := exists(root, t)
		if ok {
			continue
		}
		if err != nil {
			return made, fmt.Errorf("mount point %s: %w", t.Path, err)
		}
		if r == nil {
			if r, err = copier.NewRoot(root); err != nil {
				return made, err
			}
			defer r.Close()
		}
		dir := t.Path
		if !t.Dir {
			dir = path.Dir(t.Path)
		}
		dirs, err := r.MkdirAll(dir, copier.Mkdir{})
		made = append(made, dirs...)
		if err != nil {
			return made, fmt.Errorf("mount point %s: %w", t.Path, err)
		}
		if !t.Dir {
			if err := makeFile(root, t.Path); err != nil {
				return made, fmt.Errorf("mount point %s: %w", t.Path, err)
			}
			made = append(made, t.Path)
		}
	}
	return made, nil
}

// inRoot confines a lookup; magic links (/proc/self/fd/N) lead out of any
// root and are never followed.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

func exists(root *os.File, t Target) (bool, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: inRoot}
	if t.Cover {
		how.Flags |= unix.O_NOFOLLOW
	}
	fd, err := openat2(int(root.Fd()), t.Path, how)
	if err == nil {
		unix.Close(fd)
		return true, nil
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return false, err
}

// makeFile makes an empty file without changing the time of its directory.
func makeFile(root *os.File, name string) error {
	dir, err := openat2(int(root.Fd()), path.Dir(name),
		&unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: inRoot})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, path.Base(name), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o644); err != nil {
		return err
	}
	if err := unix.Futimes(fd, []unix.Timeval{{}, {}}); err != nil {
		return err
	}
	// An O_PATH descriptor has no times of its own to set; "." below it has.
	return unix.UtimesNanoAt(dir, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// openat2 repeats a lookup that lost a race with a rename on the same file
// system (EAGAIN, see openat2(2)).
func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for range 100 {
		fd, err := unix.Openat2(dir, name, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}
