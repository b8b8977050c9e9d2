package owners

import (
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
)

// family is what a call is about.
type family int

const (
	famChown family = iota + 1
	famStat
	famStatx
	famSetID
	famGetID
	famSetGroups
	famGetGroups
	famOpen   // with a path, and flags that make a file or write to it
	famMake   // mkdir(2) and its kin
	famRename // with two paths
	famLink
	famRemove
	famTimes
	famMode
	famAccess
	famExec
)

var chownNames = []string{"chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32"}

var idNames = []string{
	"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
	"getuid32", "geteuid32", "getgid32", "getegid32", "getresuid32", "getresgid32",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
	"setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32", "setgroups32",
	"getgroups", "getgroups32",
}

// makeNames are the calls that make files and give them names: who calls
// them has the file. Those of open(2)'s family are asked about with O_CREAT
// and O_TMPFILE only, utimensat(2) where it is about links, and access(2)
// where it is about writing. None is made for every file that is only read.
var makeNames = []string{
	"open", "openat", "openat2", "creat", "mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat",
	"rename", "renameat", "renameat2", "link", "linkat", "utimensat", "utimensat_time64",
	"access", "faccessat", "faccessat2",
}

// userNames are what a step that does not begin as root is asked about, too,
// since the kernel takes all files for its own.
var userNames = []string{
	"unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat", "fchmodat2", "truncate", "truncate64", "execve", "execveat",
}

const tmpFile = 0o20000000 // __O_TMPFILE, without O_DIRECTORY

// writes are the bits of open(2) that ask for more than reading.
const writes = unix.O_WRONLY | unix.O_RDWR | unix.O_TRUNC

func conditions(user bool) map[string]seccomp.Bits {
	open := uint32(unix.O_CREAT | tmpFile)
	times := seccomp.Bits{Index: 3, Mask: unix.AT_SYMLINK_NOFOLLOW}
	if user {
		open |= writes
		times = seccomp.Bits{Index: 1, Mask: 1<<32 - 1} // there is a path
	}
	return map[string]seccomp.Bits{
		"open": {Index: 1, Mask: open}, "openat": {Index: 2, Mask: open},
		"utimensat": times, "utimensat_time64": times,
		"access": {Index: 1, Mask: unix.W_OK}, "faccessat": {Index: 2, Mask: unix.W_OK}, "faccessat2": {Index: 2, Mask: unix.W_OK},
	}
}

// nativeStatNames are those whose answer is unix.Stat_t. Of the other
// architectures that the kernel runs, statx(2) is answered, which their
// libraries prefer.
func nativeStatNames() []string {
	switch runtime.GOARCH {
	case "386", "arm":
		return []string{"stat64", "lstat64", "fstat64", "fstatat64"}
	}
	return []string{"stat", "lstat", "fstat", "newfstatat"}
}

// Asked are the calls that a filter must ask about; user says that the step
// begins as another user than root.
func Asked(user bool) seccomp.Asked {
	common := slices.Concat([]string{"statx"}, chownNames, idNames, makeNames)
	if user {
		common = append(common, userNames...)
	}
	return seccomp.Asked{Native: append(nativeStatNames(), common...), Compat: common, When: conditions(user)}
}

// call is one call of the table: how its arguments are to be read.
type call struct {
	family family
	// path is the index of the path's argument, or -1; dir that of the
	// directory's descriptor, or of the file's own where there is no path; flags
	// that of the AT_* flags.
	path, dir, flags int
	nofollow         bool   // without AT_SYMLINK_NOFOLLOW
	uid, gid         int    // famChown: indices
	buffer           int    // famStat and famStatx: where the answer goes
	ids              int    // famSetID: how many ids there are
	group            bool   // famSetID and famGetID: of groups
	name             string // of these, without "uid" or "gid"
	short            bool   // ids of 16 bits
	narrow           bool   // arguments of 32 bits

	open      int  // famOpen: the O_* flags, or howFlags or creatFlags
	to, toDir int  // famRename and famLink: as path and dir, of the new name
	mode      int  // famAccess: what is asked for
	times     int  // famTimes
	wide      bool // famTimes: of 64 bits where arguments have 32
}

const (
	howFlags   = -2 // in memory: struct open_how at argument 2
	creatFlags = -3
)

// table lists the calls by what notifications name them.
func table() map[seccomp.Call]call {
	asked := Asked(true)
	list := map[seccomp.Call]call{}
	for key, n := range asked.Calls() {
		c := describe(strings.TrimSuffix(n.Name, "32"))
		c.narrow = n.Narrow
		// fchownat came with ids of 32 bits everywhere, setgroups is not read.
		c.short = n.Narrow && !strings.HasSuffix(n.Name, "32") && n.Name != "fchownat"
		list[key] = c
	}
	return list
}

func describe(name string) call {
	none := call{path: -1, dir: -1, flags: -1}
	switch name {
	case "chown", "lchown":
		return call{family: famChown, path: 0, dir: -1, flags: -1, nofollow: name == "lchown", uid: 1, gid: 2}
	case "fchown":
		return call{family: famChown, path: -1, dir: 0, flags: -1, uid: 1, gid: 2}
	case "fchownat":
		return call{family: famChown, path: 1, dir: 0, flags: 4, uid: 2, gid: 3}
	case "stat", "lstat", "stat64", "lstat64":
		return call{family: famStat, path: 0, dir: -1, flags: -1, nofollow: name[0] == 'l', buffer: 1}
	case "fstat", "fstat64":
		return call{family: famStat, path: -1, dir: 0, flags: -1, buffer: 1}
	case "newfstatat", "fstatat64":
		return call{family: famStat, path: 1, dir: 0, flags: 3, buffer: 2}
	case "statx":
		return call{family: famStatx, path: 1, dir: 0, flags: 2, buffer: 4}
	case "setgroups":
		none.family = famSetGroups
	case "getgroups":
		none.family = famGetGroups
	default:
		if c, ok := describeMaking(name); ok {
			return c
		}
		none.name, none.group = name[:len(name)-len("uid")], strings.HasSuffix(name, "gid")
		none.family = famSetID
		switch none.name {
		case "get", "gete", "getres":
			none.family = famGetID
		case "setre":
			none.ids = 2
		case "setres":
			none.ids = 3
		default: // set, setfs
			none.ids = 1
		}
	}
	return none
}

// describeMaking describes makeNames and userNames.
func describeMaking(name string) (call, bool) {
	c := call{path: 0, dir: -1, flags: -1, nofollow: true}
	switch name {
	case "open":
		c.family, c.open = famOpen, 1
	case "creat":
		c.family, c.open = famOpen, creatFlags
	case "openat":
		c.family, c.dir, c.path, c.open = famOpen, 0, 1, 2
	case "openat2":
		c.family, c.dir, c.path, c.open = famOpen, 0, 1, howFlags
	case "mkdir", "mknod":
		c.family = famMake
	case "mkdirat", "mknodat":
		c.family, c.dir, c.path = famMake, 0, 1
	case "symlink":
		c.family, c.path = famMake, 1
	case "symlinkat":
		c.family, c.dir, c.path = famMake, 1, 2
	case "rename":
		c.family, c.to, c.toDir = famRename, 1, -1
	case "renameat", "renameat2":
		c.family, c.dir, c.path, c.toDir, c.to = famRename, 0, 1, 2, 3
	case "link":
		c.family, c.to, c.toDir = famLink, 1, -1
	case "linkat":
		c.family, c.dir, c.path, c.toDir, c.to, c.flags = famLink, 0, 1, 2, 3, 4
	case "unlink", "rmdir":
		c.family = famRemove
	case "unlinkat":
		c.family, c.dir, c.path = famRemove, 0, 1
	case "utimensat", "utimensat_time64":
		c.family, c.dir, c.path, c.times, c.flags, c.nofollow = famTimes, 0, 1, 2, 3, false
		c.wide = strings.HasSuffix(name, "64")
	case "chmod":
		c.family, c.nofollow = famMode, false
	case "fchmod":
		c.family, c.path, c.dir = famMode, -1, 0
	case "fchmodat":
		c.family, c.dir, c.path, c.nofollow = famMode, 0, 1, false
	case "fchmodat2":
		c.family, c.dir, c.path, c.flags, c.nofollow = famMode, 0, 1, 3, false
	case "truncate", "truncate64":
		c.family, c.mode, c.nofollow = famAccess, wantsWrite, false
	case "access":
		c.family, c.mode, c.nofollow = famAccess, 1, false
	case "faccessat":
		c.family, c.dir, c.path, c.mode, c.nofollow = famAccess, 0, 1, 2, false
	case "faccessat2":
		c.family, c.dir, c.path, c.mode, c.flags, c.nofollow = famAccess, 0, 1, 2, 3, false
	case "execve":
		c.family, c.nofollow = famExec, false
	case "execveat":
		c.family, c.dir, c.path, c.flags, c.nofollow = famExec, 0, 1, 4, false
	default:
		return c, false
	}
	return c, true
}

// wantsWrite, in place of an argument's index: W_OK as an effective user.
const wantsWrite = -1

// keep is chown(2)'s -1: the id stays as it is.
const keep = ^uint32(0)

// id reads an id from an argument.
func (c *call) id(arg uint64) uint32 {
	if c.short {
		if v := uint16(arg); v != ^uint16(0) {
			return uint32(v)
		}
		return keep
	}
	return uint32(arg)
}

// address reads an address or a length from an argument.
func (c *call) address(arg uint64) uint64 {
	if c.narrow {
		return uint64(uint32(arg))
	}
	return arg
}
