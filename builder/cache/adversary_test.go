package cache

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/copier"
	"golang.org/x/sys/unix"
)

// TestIndexNeverMisses: whatever somebody does to a context, with the times
// set back to what they were, the digests that an index helped with are those
// of files that were read.
func TestIndexNeverMisses(t *testing.T) {
	t.Parallel()
	write := func(p, text string) error { return os.WriteFile(p, []byte(text), 0o644) }
	// back gives p the times that it had before f.
	back := func(p string, f func() error) error {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		return os.Chtimes(p, st.ModTime(), st.ModTime())
	}
	var mapped []byte
	for name, change := range map[string]func(dir string) error{
		"same size, time set back": func(d string) error { return back(d+"/f", func() error { return write(d+"/f", "F") }) },
		"in place, time set back": func(d string) error {
			return back(d+"/f", func() error {
				f, err := os.OpenFile(d+"/f", os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteAt([]byte("F"), 0)
				return err
			})
		},
		"another file renamed over it": func(d string) error { return os.Rename(d+"/other", d+"/s/g") },
		"two files exchanged": func(d string) error {
			return unix.Renameat2(unix.AT_FDCWD, d+"/f", unix.AT_FDCWD, d+"/other", unix.RENAME_EXCHANGE)
		},
		"two directories exchanged": func(d string) error {
			return unix.Renameat2(unix.AT_FDCWD, d+"/s", unix.AT_FDCWD, d+"/t", unix.RENAME_EXCHANGE)
		},
		"a link in its place": func(d string) error {
			if err := os.Remove(d + "/f"); err != nil {
				return err
			}
			return os.Symlink("other", d+"/f")
		},
		"a link that leads elsewhere": func(d string) error {
			if err := os.Remove(d + "/l"); err != nil {
				return err
			}
			return os.Symlink("g", d+"/l")
		},
		"a hard link to another file": func(d string) error {
			if err := os.Remove(d + "/f"); err != nil {
				return err
			}
			return os.Link(d+"/other", d+"/f")
		},
		"mode":          func(d string) error { return os.Chmod(d+"/f", 0o755) },
		"truncated":     func(d string) error { return back(d+"/f", func() error { return os.Truncate(d+"/f", 0) }) },
		"a hole":        func(d string) error { return back(d+"/zero", func() error { return punch(d + "/big") }) },
		"a new mapping": func(d string) error { return back(d+"/big", func() error { return mapAndWrite(d+"/big", nil) }) },
		"a mapping of before": func(string) error {
			mapped[0]++
			return nil
		},
	} {
		for _, hash := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "", true: ", hashed by a copy"}[hash], func(t *testing.T) {
				dir, out := t.TempDir(), t.TempDir()
				for _, d := range []string{"/s", "/t"} {
					if err := os.Mkdir(dir+d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				for p, text := range map[string]string{"/f": "f", "/other": "o", "/s/g": "g", "/t/g": "G", "/zero": "", "/big": strings.Repeat("b", 1<<16)} {
					if err := write(dir+p, text); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Symlink("f", dir+"/l"); err != nil {
					t.Fatal(err)
				}
				if name == "a mapping of before" {
					if err := mapAndWrite(dir+"/big", &mapped); err != nil {
						t.Fatal(err)
					}
					defer unix.Munmap(mapped) //nolint:errcheck // of a test
					if !leases(t, dir+"/big") {
						t.Skip("this file system has no leases, or none that know of mappings")
					}
				}
				c, _, clk := newCache(t)
				clk.advance(time.Hour) // the files are old when they are read
				digests := func(x copier.Index, put bool) []copier.FileDigest { return contextDigests(t, dir, out, x, put) }
				x := openIndex(t, c)
				before := digests(x, hash)
				flush(t, x)
				if name != "a mapping of before" && x.data.fresh.n == 0 {
					t.Fatal("nothing was remembered")
				}
				time.Sleep(20 * time.Millisecond) // a tick of the clock for files, where it is coarse
				if err := change(dir); err != nil {
					t.Fatal(err)
				}
				x = openIndex(t, reopen(c))
				got, want := digests(x, false), digests(nil, false)
				if !slices.Equal(got, want) {
					t.Errorf("a change was missed:\n%v\nwant\n%v", got, want)
				}
				if slices.Equal(got, before) {
					t.Error("nothing changed: the test shows nothing")
				}
			})
		}
	}
}

// contextDigests are those of a COPY of all; with put they are made by copying.
func contextDigests(t *testing.T, dir, out string, x copier.Index, put bool) []copier.FileDigest {
	t.Helper()
	ctx := context.Background()
	root, err := copier.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := copier.Select{Patterns: []string{"."}}
	o := copier.DigestOptions{Index: x}
	if !put {
		s.Digest = &o
	}
	sel, err := root.Select(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if put {
		to, err := copier.OpenRoot(out)
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		if err := sel.Put(ctx, to, copier.Put{Dest: "/", Hash: true, Owner: &copier.Owner{UID: os.Getuid(), GID: os.Getgid()}}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := sel.Digests(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return d.List()
}

// mapAndWrite writes through a shared mapping, which keep takes or which ends.
func mapAndWrite(path string, keep *[]byte) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	b[0]++
	if keep != nil {
		*keep = b
		return nil
	}
	return unix.Munmap(b)
}

// leases reports whether the kernel refuses a lease on a file that is mapped.
func leases(t *testing.T, path string) bool {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	return err == unix.EAGAIN
}

// punch makes a hole, which changes no size.
func punch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<12); err != nil {
		_, err = f.WriteAt(make([]byte, 1<<12), 0) // a file system without holes
		return err
	}
	return nil
}
