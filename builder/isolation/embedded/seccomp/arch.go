package seccomp

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Columns of the table of system calls.
const (
	colAMD64 = iota
	col386
	colARM64
	colARM
	colRISCV64
	colPPC64LE
	colS390X
	colLoong64
	archCount
)

// call is one system call and its number on each architecture.
type call struct {
	name string
	nr   [archCount]int32
}

// arch is an architecture that programs can be compiled for.
type arch struct {
	name   specs.Arch
	audit  uint32 // AUDIT_ARCH_*, uapi/linux/audit.h
	column int
	// narrow: arguments have 32 bits, the high words are not looked at.
	narrow bool
	// big: the high word of an argument comes first.
	big bool
	// x32: numbers with bit 30 set belong to another ABI.
	x32 bool
}

// host is what a kernel of one GOARCH runs: its own architecture first, then
// those it is compatible with.
type host struct {
	goarch string
	runs   []arch
}

var hosts = [...]host{
	{"amd64", []arch{
		{name: specs.ArchX86_64, audit: 0xc000003e, column: colAMD64, x32: true},
		{name: specs.ArchX86, audit: 0x40000003, column: col386, narrow: true},
	}},
	{"386", []arch{
		{name: specs.ArchX86, audit: 0x40000003, column: col386, narrow: true},
		// A 386 program on an amd64 kernel can make 64-bit calls.
		{name: specs.ArchX86_64, audit: 0xc000003e, column: colAMD64, x32: true},
	}},
	{"arm64", []arch{
		{name: specs.ArchAARCH64, audit: 0xc00000b7, column: colARM64},
		{name: specs.ArchARM, audit: 0x40000028, column: colARM, narrow: true},
	}},
	{"arm", []arch{{name: specs.ArchARM, audit: 0x40000028, column: colARM, narrow: true}}},
	{"riscv64", []arch{{name: specs.ArchRISCV64, audit: 0xc00000f3, column: colRISCV64}}},
	{"ppc64le", []arch{{name: specs.ArchPPC64LE, audit: 0xc0000015, column: colPPC64LE}}},
	{"s390x", []arch{{name: specs.ArchS390X, audit: 0x80000016, column: colS390X, big: true}}},
	{"loong64", []arch{{name: specs.ArchLOONGARCH64, audit: 0xc0000102, column: colLoong64}}},
}

// hostFor returns the host of goarch.
func hostFor(goarch string) (host, bool) {
	for _, h := range hosts {
		if h.goarch == goarch {
			return h, true
		}
	}
	return host{}, false
}

// knownArch tells the spellings of the runtime-spec from typing errors.
func knownArch(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// number returns the number of a call, or false when a does not have it.
func (a *arch) number(name string) (uint32, bool) {
	table := calls[:]
	i, ok := find(table, name)
	if !ok {
		table = oldCalls[:]
		i, ok = find(table, name)
	}
	if !ok || table[i].nr[a.column] < 0 {
		return 0, false
	}
	return uint32(table[i].nr[a.column]), true
}

func find(table []call, name string) (int, bool) {
	return slices.BinarySearchFunc(table, name, func(c call, name string) int { return strings.Compare(c.name, name) })
}

// armPrivate is where the arm kernel's private calls begin (__ARM_NR_BASE).
// They do not count when the highest named call is looked for.
const armPrivate = 0x0f0000

// muxed are the calls that architectures with socketcall(2) or ipc(2) can
// make through these too, by the code in the first argument
// (uapi/linux/net.h, uapi/linux/ipc.h).
var muxed = [...]struct {
	name, mux string
	code      uint32
}{
	{"socket", "socketcall", 1},
	{"bind", "socketcall", 2},
	{"connect", "socketcall", 3},
	{"listen", "socketcall", 4},
	{"accept", "socketcall", 5},
	{"getsockname", "socketcall", 6},
	{"getpeername", "socketcall", 7},
	{"socketpair", "socketcall", 8},
	{"send", "socketcall", 9},
	{"recv", "socketcall", 10},
	{"sendto", "socketcall", 11},
	{"recvfrom", "socketcall", 12},
	{"shutdown", "socketcall", 13},
	{"setsockopt", "socketcall", 14},
	{"getsockopt", "socketcall", 15},
	{"sendmsg", "socketcall", 16},
	{"recvmsg", "socketcall", 17},
	{"accept4", "socketcall", 18},
	{"recvmmsg", "socketcall", 19},
	{"sendmmsg", "socketcall", 20},
	{"semop", "ipc", 1},
	{"semget", "ipc", 2},
	{"semctl", "ipc", 3},
	{"semtimedop", "ipc", 4},
	{"msgsnd", "ipc", 11},
	{"msgrcv", "ipc", 12},
	{"msgget", "ipc", 13},
	{"msgctl", "ipc", 14},
	{"shmat", "ipc", 21},
	{"shmdt", "ipc", 22},
	{"shmget", "ipc", 23},
	{"shmctl", "ipc", 24},
}
