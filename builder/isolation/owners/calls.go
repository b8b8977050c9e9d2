package owners

import (
	"runtime"
	"strings"

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
)

var chownNames = []string{"chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32"}

var idNames = []string{
	"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid",
	"getuid32", "geteuid32", "getgid32", "getegid32", "getresuid32", "getresgid32",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
	"setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32", "setgroups32",
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

// Asked are the calls that a filter must ask about.
func Asked() seccomp.Asked {
	common := append(append([]string{"statx"}, chownNames...), idNames...)
	return seccomp.Asked{Native: append(nativeStatNames(), common...), Compat: common}
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
}

// table lists the calls by what notifications name them.
func table() map[seccomp.Call]call {
	asked := Asked()
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
	default:
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
