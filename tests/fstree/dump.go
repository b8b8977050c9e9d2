package fstree

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Option adds to what Dump shows.
type Option int

const (
	// Contents shows what is in files.
	Contents Option = iota
	// Times shows modification times.
	Times
	// NoOwner leaves uid:gid out, for tests that run as any user.
	NoOwner
)

// shortContent is the longest content shown as it is.
const shortContent = 64

// Dump writes the tree below root, which is trusted, one line per object,
// sorted. Later names of an inode are "hard" lines that name the first.
func Dump(root string, opts ...Option) (string, error) {
	type object struct {
		path string
		info fs.FileInfo
	}
	var all []object
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all = append(all, object{p, info})
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("dump tree: %w", err)
	}
	slices.SortFunc(all, func(a, b object) int { return strings.Compare(a.path, b.path) })
	first := map[[2]uint64]string{}
	var b strings.Builder
	for _, o := range all {
		line, err := line(root, o.path, o.info, first, opts)
		if err != nil {
			return "", fmt.Errorf("dump tree: %w", err)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// MustDump is Dump for tests that expect it to work.
func MustDump(t testing.TB, root string, opts ...Option) string {
	t.Helper()
	s, err := Dump(root, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(root, p string, info fs.FileInfo, first map[[2]uint64]string, opts []Option) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: p, Err: err}
	}
	name := quote(strings.TrimPrefix(p, strings.TrimSuffix(root, "/")))
	if !info.IsDir() && st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if f, ok := first[id]; ok {
			return name + " hard " + f, nil
		}
		first[id] = name
	}
	typ, detail, err := describe(p, &st, slices.Contains(opts, Contents))
	if err != nil {
		return "", err
	}
	words := []string{name, typ, fmt.Sprintf("%04o", st.Mode&0o7777)}
	if !slices.Contains(opts, NoOwner) {
		words = append(words, fmt.Sprintf("%d:%d", st.Uid, st.Gid))
	}
	if detail != "" {
		words = append(words, detail)
	}
	if slices.Contains(opts, Times) {
		words = append(words, fmt.Sprintf("@%d.%09d", st.Mtim.Sec, st.Mtim.Nsec))
	}
	attrs, err := xattrs(p)
	if err != nil {
		return "", err
	}
	return strings.Join(append(words, attrs...), " "), nil
}

func describe(p string, st *unix.Stat_t, contents bool) (typ, detail string, err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir", "", nil
	case unix.S_IFLNK:
		link, err := os.Readlink(p)
		return "link", "-> " + quote(link), err
	case unix.S_IFIFO:
		return "fifo", "", nil
	case unix.S_IFSOCK:
		return "socket", "", nil
	case unix.S_IFCHR:
		return "char", fmt.Sprintf("%d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	case unix.S_IFBLK:
		return "block", fmt.Sprintf("%d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	}
	detail = fmt.Sprintf("%d bytes", st.Size)
	if contents {
		detail, err = content(p, st.Size)
	}
	return "file", detail, err
}

func content(p string, size int64) (string, error) {
	if size <= shortContent {
		b, err := os.ReadFile(p)
		return strconv.Quote(string(b)), err
	}
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d bytes sha256:%x", size, h.Sum(nil)[:6]), nil
}

// xattrs lists what belongs to a tree's content: not the labels and ACLs that
// a host puts on its files.
func xattrs(p string) ([]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, names)
	if err == unix.ENOTSUP {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: p, Err: err}
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "trusted.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(p, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "lgetxattr", Path: p, Err: err}
		}
		out = append(out, quote(name)+"="+strconv.Quote(string(value[:n])))
	}
	slices.Sort(out)
	return out, nil
}

// quote leaves plain names alone.
func quote(s string) string {
	q := strconv.Quote(s)
	if len(q) == len(s)+2 && !strings.ContainsAny(s, " =#") && s != "" {
		return s
	}
	return q
}
