package userns

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Range is a number of ids from one on.
type Range struct{ Start, Count uint32 }

func (r Range) end() uint64 { return uint64(r.Start) + uint64(r.Count) }

// SubIDs returns the ranges that /etc/subuid gives to a user and /etc/subgid
// to a group, by their names or numbers.
func SubIDs(user, group string) (uids, gids []Range, err error) {
	for _, side := range []struct {
		file, name string
		out        *[]Range
	}{{"/etc/subuid", user, &uids}, {"/etc/subgid", group, &gids}} {
		f, err := os.Open(side.file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if err == nil {
			list, err := parseSubIDs(f, side.name)
			f.Close()
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", side.file, err)
			}
			for _, r := range list {
				*side.out = append(*side.out, Range{r.start, r.count})
			}
		}
		if len(*side.out) == 0 {
			return nil, nil, fmt.Errorf("%s has no range for %q; add a line such as %s:2147483647:65536: %w", side.file, side.name, side.name, fs.ErrNotExist)
		}
	}
	return uids, gids, nil
}

// autoUser is whose ranges are given to namespaces that want any, as podman
// and buildah have it.
const autoUser = "containers"

// Sizes of an allocation that says none.
const (
	usualSize = 65536
	leastSize = 1024
)

// Allocation are ids that no other namespace has: Size users from UID on, and
// groups from GID on.
type Allocation struct {
	UID, GID, Size uint32
	file           *os.File
}

// Close gives them back.
func (a *Allocation) Close() {
	_ = os.Remove(a.file.Name())
	a.file.Close()
}

// Allocate takes size ids (0: 65536, or as many as there are, but no less than
// 1024) of the user containers in /etc/subuid and /etc/subgid. Those that others
// have taken, for stores with the same directory of volatile state, are noted
// there, in files that are locked for as long as their process uses them.
// used are such as are taken besides.
func Allocate(runRoot string, size uint32, used []Range) (*Allocation, error) {
	uids, gids, err := SubIDs(autoUser, autoUser)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(runRoot, "strata-ids")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	taken, err := allocations(dir)
	if err != nil {
		return nil, err
	}
	used = append(taken, used...)
	a := &Allocation{Size: size}
	least := size
	if size == 0 {
		a.Size, least = usualSize, leastSize
	}
	for ; a.Size >= least; a.Size /= 2 {
		var okU, okG bool
		a.UID, okU = free(uids, used, a.Size)
		a.GID, okG = free(gids, used, a.Size)
		if okU && okG {
			return a, a.note(dir)
		}
	}
	return nil, fmt.Errorf("the ranges of %s in /etc/subuid and /etc/subgid have no %d ids together that are free: add more, or give a smaller size", autoUser, max(size, leastSize))
}

func (a *Allocation) note(dir string) (err error) {
	name := filepath.Join(dir, fmt.Sprintf("%d-%d-%d", a.UID, a.GID, a.Size))
	if a.file, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err = unix.Flock(int(a.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		a.file.Close()
		return fmt.Errorf("lock %s: %w", name, err)
	}
	return nil
}

// allocations are those whose process lives; the files of others are removed.
func allocations(dir string) (out []Range, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var a Allocation
		if n, _ := fmt.Sscanf(e.Name(), "%d-%d-%d", &a.UID, &a.GID, &a.Size); n != 3 {
			continue
		}
		name := filepath.Join(dir, e.Name())
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(name)
		} else {
			out = append(out, Range{a.UID, a.Size}, Range{a.GID, a.Size})
		}
		f.Close()
	}
	return out, nil
}

// free finds size ids of ranges that are not used.
func free(ranges, used []Range, size uint32) (uint32, bool) {
	used = slices.Clone(used)
	slices.SortFunc(used, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	for _, r := range ranges {
		at := uint64(r.Start)
		for _, u := range used {
			if at+uint64(size) > uint64(u.Start) && at < u.end() {
				at = u.end()
			}
		}
		if at+uint64(size) <= r.end() {
			return uint32(at), true
		}
	}
	return 0, false
}
