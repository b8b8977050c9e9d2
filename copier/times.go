package copier

import (
	"time"

	"github.com/stratabuild/strata/copier/internal/at"
	"golang.org/x/sys/unix"
)

// timespec keeps years that nanoseconds since the epoch cannot hold.
func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// keptTime is a directory whose modification time is put back once all that
// goes into it is there. It owns fd.
type keptTime struct {
	fd    int
	path  string
	mtime unix.Timespec
}

// keepTimes restores directory times. The zero value is empty.
type keepTimes struct{ dirs []keptTime }

// add remembers the time that the directory behind fd has now. fd is
// duplicated.
func (k *keepTimes) add(fd int, path string, mtime unix.Timespec) error {
	own, err := at.Dup(fd)
	if err != nil {
		return err
	}
	k.dirs = append(k.dirs, keptTime{own, path, mtime})
	return nil
}

// restore sets the times, the last added first, and closes the descriptors.
// A directory that was added twice thus ends with its first time.
func (k *keepTimes) restore() error {
	var first error
	for i := len(k.dirs) - 1; i >= 0; i-- {
		d := k.dirs[i]
		if err := at.Chtimes(d.fd, d.mtime); err != nil && first == nil {
			first = fail("set the time of", d.path, err)
		}
		at.Close(d.fd)
	}
	k.dirs = nil
	return first
}
