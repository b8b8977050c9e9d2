package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NoHome is the home directory of users who have none: it does not exist and
// nobody can make it, not even where / may be written by all (proc(5)), so
// that nothing is read from it or written to it. Without a value, libraries
// would take names in it for names in the working directory, or take that of
// id 0, which a worker has, for ours.
const NoHome = "/proc/nonexistent"

// settleEnvironment takes out of the environment what belongs to another
// user, as su(1) and sudo(8) leave it, and fills in the home directory. What
// had to be changed is told by notes. It is called before anything is read
// from these directories.
func settleEnvironment() (notes []string) {
	if os.Geteuid() == 0 {
		if os.Getenv("HOME") == "" {
			os.Setenv("HOME", accountHome())
		}
		return nil
	}
	home := os.Getenv("HOME")
	if home == "" {
		os.Setenv("HOME", accountHome())
	} else if err := unix.Access(home, unix.X_OK); errors.Is(err, fs.ErrPermission) {
		os.Unsetenv("HOME")
		os.Setenv("HOME", accountHome())
		notes = append(notes, fmt.Sprintf("HOME=%s cannot be entered by user %d: %s is used", home, os.Geteuid(), os.Getenv("HOME")))
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && foreign(dir) {
		os.Unsetenv("XDG_RUNTIME_DIR")
		notes = append(notes, fmt.Sprintf("XDG_RUNTIME_DIR=%s is another user's and is not used: log in as this user (machinectl shell, su -), or unset it", dir))
	}
	return notes
}

// settleRuntimeDir gives a worker whose user has no XDG_RUNTIME_DIR the
// directory that containers/storage would choose. Unset, it would make
// containers/image look for credentials in that of id 0, which the worker has.
func settleRuntimeDir(uid int) {
	if os.Getenv("XDG_RUNTIME_DIR") != "" {
		return
	}
	dir := fmt.Sprintf("/run/user/%d", uid)
	if !own(dir) {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("storage-run-%d", uid))
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) || !own(dir) {
			return // the store's opening says what is wrong with it
		}
	}
	os.Setenv("XDG_RUNTIME_DIR", dir)
}

// own reports a directory that only this process's user may use, which in a
// directory that all may write nobody else can have put there.
func own(dir string) bool {
	var st unix.Stat_t
	return unix.Lstat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == os.Geteuid() && st.Mode&0o077 == 0
}

// accountHome is the home directory in the user database, or NoHome.
func accountHome() string {
	if u, err := user.LookupId(fmt.Sprint(os.Geteuid())); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	return NoHome
}

// foreign reports a directory that exists and is not ours. One that does not
// exist is left to those who use it.
func foreign(dir string) bool {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	return errors.Is(err, fs.ErrPermission) || err == nil && int(st.Uid) != os.Geteuid()
}

// Ranges returns the ids that newuidmap and newgidmap may map for a user, as
// their arguments name them ("0 1000 1 1 100000 65536"), or why they cannot,
// with the remedy.
func Ranges(uid, gid int) (uids, gids []string, err error) {
	m, err := newMapper(uid, gid)
	if err != nil {
		return nil, nil, err
	}
	return m.uidArgs, m.gidArgs, nil
}
