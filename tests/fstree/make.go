package fstree

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Make builds the tree that spec describes below root, which is made when it
// is missing. A malformed line fails the test; what an unprivileged user may
// not do (foreign owners, device nodes) skips it.
func Make(t testing.TB, root, spec string) {
	t.Helper()
	err := Build(root, spec)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("this user may not make the tree: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Build is Make outside of a test.
func Build(root, spec string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	type timed struct {
		path string
		at   unix.Timespec
	}
	var times []timed
	for i, l := range strings.Split(spec, "\n") {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		e, err := parse(l)
		if err == nil {
			err = e.make(root)
		}
		if err != nil {
			return fmt.Errorf("tree line %d, %s: %w", i+1, l, err)
		}
		if e.time != nil {
			times = append(times, timed{filepath.Join(root, e.path), *e.time})
		}
	}
	// Last, since entries change the times of their directories.
	for _, t := range times {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, t.path, []unix.Timespec{t.at, t.at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimensat", Path: t.path, Err: err}
		}
	}
	return nil
}

// entry is one line.
type entry struct {
	path, typ    string
	mode         uint32
	owner        *[2]int
	words        []string // the rest
	time         *unix.Timespec
	xattrs       [][2]string
	major, minor uint32
}

var (
	modeWord  = regexp.MustCompile(`^[0-7]{3,4}$`)
	ownerWord = regexp.MustCompile(`^(\d+):(\d+)$`)
	devWord   = regexp.MustCompile(`^(\d+),(\d+)$`)
	timeWord  = regexp.MustCompile(`^@(-?\d+)(?:\.(\d{9}))?$`)
)

func parse(line string) (*entry, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	if len(words) < 2 || !strings.HasPrefix(words[0].text, "/") {
		return nil, errors.New("want: /path type [mode] [uid:gid] ...")
	}
	e := &entry{path: path.Clean(words[0].text), typ: words[1].text, mode: 0o644}
	if e.typ == "dir" {
		e.mode = 0o755
	}
	for i, w := range words[2:] {
		switch {
		case w.quoted:
			e.words = append(e.words, "content", w.text)
		case w.name != "":
			e.xattrs = append(e.xattrs, [2]string{w.name, w.text})
		case i == 0 && modeWord.MatchString(w.text):
			m, _ := strconv.ParseUint(w.text, 8, 32)
			e.mode = uint32(m)
		case ownerWord.MatchString(w.text):
			m := ownerWord.FindStringSubmatch(w.text)
			e.owner = &[2]int{number(m[1]), number(m[2])}
		case timeWord.MatchString(w.text):
			m := timeWord.FindStringSubmatch(w.text)
			sec, _ := strconv.ParseInt(m[1], 10, 64)
			nsec, _ := strconv.ParseInt("0"+m[2], 10, 64)
			e.time = &unix.Timespec{Sec: sec, Nsec: nsec}
		case devWord.MatchString(w.text):
			m := devWord.FindStringSubmatch(w.text)
			e.major, e.minor = uint32(number(m[1])), uint32(number(m[2]))
		default:
			e.words = append(e.words, w.text)
		}
	}
	return e, nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// word is a blank-separated part of a line: text, "text" or name="text".
type word struct {
	name, text string
	quoted     bool
}

func split(line string) ([]word, error) {
	var out []word
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var w word
		end := strings.IndexAny(line, " \t\"=")
		if end > 0 && line[end] == '=' {
			w.name, line = line[:end], line[end+1:]
		}
		if strings.HasPrefix(line, `"`) {
			q, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("unterminated string: %w", err)
			}
			w.text, _ = strconv.Unquote(q)
			w.quoted = w.name == "" && len(out) > 1 && out[len(out)-1].text != "->"
			line = line[len(q):]
			if strings.HasPrefix(line, "=") && w.name == "" { // "odd name"=value
				w.name, w.quoted = w.text, false
				q, err := strconv.QuotedPrefix(line[1:])
				if err != nil {
					return nil, fmt.Errorf("value: %w", err)
				}
				w.text, _ = strconv.Unquote(q)
				line = line[1+len(q):]
			}
		} else {
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			w.text, line = line[:end], line[end:]
		}
		out = append(out, w)
	}
	return out, nil
}

func (e *entry) make(root string) error {
	p := filepath.Join(root, e.path)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	if err := e.object(root, p); err != nil {
		return err
	}
	if e.typ == "hard" {
		return nil
	}
	if e.owner != nil && (e.owner[0] != os.Geteuid() || e.owner[1] != os.Getegid()) {
		if err := os.Lchown(p, e.owner[0], e.owner[1]); err != nil {
			return err
		}
	}
	if e.typ != "link" {
		if err := unix.Chmod(p, e.mode); err != nil {
			return &os.PathError{Op: "chmod", Path: p, Err: err}
		}
	}
	for _, x := range e.xattrs {
		if err := unix.Lsetxattr(p, x[0], []byte(x[1]), 0); err != nil {
			return &os.PathError{Op: "setxattr " + x[0], Path: p, Err: err}
		}
	}
	return nil
}

func (e *entry) object(root, p string) error {
	switch e.typ {
	case "dir":
		if err := os.Mkdir(p, 0o700); err != nil && !os.IsExist(err) {
			return err
		}
		return nil
	case "file":
		return e.file(p)
	case "link":
		if len(e.words) < 2 || e.words[0] != "->" {
			return errors.New("want: link -> target")
		}
		return os.Symlink(e.words[1], p)
	case "hard":
		if len(e.words) < 1 {
			return errors.New("want: hard /first/name")
		}
		return os.Link(filepath.Join(root, e.words[0]), p)
	case "fifo":
		return mknod(p, unix.S_IFIFO|0o600, 0)
	case "socket":
		return mknod(p, unix.S_IFSOCK|0o600, 0)
	case "char":
		return mknod(p, unix.S_IFCHR|0o600, unix.Mkdev(e.major, e.minor))
	case "block":
		return mknod(p, unix.S_IFBLK|0o600, unix.Mkdev(e.major, e.minor))
	}
	return fmt.Errorf("unknown type %q", e.typ)
}

func mknod(p string, mode uint32, dev uint64) error {
	if err := unix.Mknod(p, mode, int(dev)); err != nil {
		return &os.PathError{Op: "mknod", Path: p, Err: err}
	}
	return nil
}

func (e *entry) file(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := e.words
	switch {
	case len(w) == 0:
	case w[0] == "content" && len(w) > 1:
		_, err = f.WriteString(w[1])
	case len(w) > 1 && w[1] == "bytes":
		n, perr := strconv.ParseInt(w[0], 10, 64)
		if perr != nil {
			return perr
		}
		if len(w) > 2 && w[2] == "sparse" {
			err = f.Truncate(n)
		} else {
			_, err = f.Write(Pattern(n))
		}
	default:
		return fmt.Errorf("content %q: want a quoted string or N bytes", w)
	}
	return err
}

// Pattern returns the bytes that Make writes for "N bytes": no two blocks of
// them are equal.
func Pattern(n int64) []byte {
	b := make([]byte, n)
	x := uint64(0x9e3779b97f4a7c15)
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (i % 8 * 8))
	}
	return b
}

// Time is a time as lines spell it, for specs that are put together.
func Time(t time.Time) string { return fmt.Sprintf("@%d.%09d", t.Unix(), t.Nanosecond()) }
