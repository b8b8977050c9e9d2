package early

// Name is the argv[0] of an init.
const Name = "strata-init"

// Magic starts every Config on the wire.
const Magic = uint64(0x7374726174610001) // "strata", version 1

// HeaderSize is the length of what comes before a Config: magic number,
// length of the config (u64), number of descriptors (u32). The first batch of
// descriptors travels with it, each further batch with one byte of its own.
const HeaderSize = 8 + 8 + 4

// BatchSize is how many descriptors are sent at once; the kernel's limit is
// 253 (SCM_MAX_FD).
const BatchSize = 200

// maxConfig bounds a config: execve(2) refuses more than a few MiB of
// arguments and environment, and mounts are small.
const maxConfig = 64 << 20

// Indices of the descriptors that are always sent. NoFD in their place says
// that the step has none and gets /dev/null.
const (
	RootFD = iota
	StdinFD
	StdoutFD
	StderrFD
	FirstTreeFD
)

// Bits of Config.Flags.
const (
	// LoopbackUp switches the loopback device on (own network namespace).
	LoopbackUp = 1 << iota
	// NoNewPrivileges sets the attribute, and loads seccomp last.
	NoNewPrivileges
	// SetGroups calls setgroups(2), which a user namespace may forbid.
	SetGroups
	// Terminal makes a pty, sends its master and makes it the standard three.
	Terminal
	// HasStdin, HasStdout and HasStderr say that the descriptor is sent as
	// such; without, it is a copy of the root's and /dev/null is used.
	HasStdin
	HasStdout
	HasStderr
	// Probe ends the init after it has tried what a host may forbid.
	Probe
	// NewCgroup makes the cgroup namespace anew: the init was put into another
	// control group since it was started.
	NewCgroup
	// SharedPID says that the pid namespace is the builder's: where a /proc for
	// it cannot be made, the host's is shown.
	SharedPID
	// NoRoot takes from id 0 what it may as root (capabilities(7), securebits):
	// the step's processes are told that they are another user. Asking must
	// work then.
	NoRoot
)

// How the nodes of /dev are made.
const (
	// DevicesMake: mknod(2) in place.
	DevicesMake = iota
	// DevicesCover: mknod on a file system that the step does not reach, and
	// bind mounts on a nodev /dev. For steps that may call mknod themselves:
	// there is no device cgroup.
	DevicesCover
	// DevicesBind: bind mounts of the host's, for user namespaces.
	DevicesBind
)

// Kinds of Mount.
const (
	// MountFS makes a file system of a type.
	MountFS = iota
	// MountTree attaches a detached mount given by descriptor.
	MountTree
)

// Bits of Mount.Flags.
const (
	// TargetKernel: the target must be a directory and no link.
	TargetKernel = 1 << iota
	// Optional: a kernel without the file system, or one that refuses, leaves
	// the target as it is.
	Optional
	// IsDev: the step's /dev.
	IsDev
	// IsPts: the step's devpts.
	IsPts
	// OrHost: where the kernel refuses, the host's tree, read-only.
	OrHost
	// IsDir: a mount point that must be made below /dev is a directory.
	IsDir
)

// Config is everything that an init is told.
type Config struct {
	Flags     uint32
	Devices   uint32
	Hostname  string
	Joins     []Join
	Mounts    []Mount
	Files     []File
	Masked    []string
	Readonly  []string
	Rlimits   []Rlimit
	Bounding  uint64 // a bit for each capability
	Effective uint64 // and permitted
	UID, GID  uint32
	Groups    []uint32
	Seccomp   []byte // struct sock_filter[], native endian; empty is none
	// Asking is loaded in place of Seccomp, with a listener that the builder
	// gets, where the kernel gives one; empty is none.
	Asking   []byte
	AppArmor string // profile to change to on execve; "" is none
	// Rows and Columns are the pty's size; 0 leaves it.
	Rows, Columns uint32
	Cwd           string
	Args, Env     []string
}

// Join is a namespace to join.
type Join struct {
	FD   uint32 // index of the descriptor
	Type uint32 // CLONE_NEW*
}

// Mount is one mount.
type Mount struct {
	Kind    uint32
	Flags   uint32
	Target  string   // absolute, unsafe
	FSType  string   // MountFS
	Options []string // MountFS: "key" or "key=value" for fsconfig(2)
	Attr    uint64   // MountFS: MOUNT_ATTR_*
	FD      uint32   // MountTree: index of the descriptor
}

// File is a small file of the step's own.
type File struct {
	Target  string
	Content []byte
}

// Rlimit is one resource limit.
type Rlimit struct {
	Resource   uint32
	Soft, Hard uint64
}

// Kinds of Report.
const (
	// ReportSetup: the container could not be made.
	ReportSetup = 'S'
	// ReportStart: the container stands; the program is executed next.
	ReportStart = 'X'
	// ReportExec: the program could not be executed.
	ReportExec = 'E'
	// ReportPty: the pty's master travels with the report.
	ReportPty = 'P'
	// ReportListener: the filter's listener travels with the report.
	ReportListener = 'N'
)

// ReportSize is the length of a report before its text: kind (u8), errno
// (u32), length of the text (u32).
const ReportSize = 1 + 4 + 4

// Encode returns c in wire form, without the header.
func (c *Config) Encode() []byte {
	w := writer(make([]byte, 0, 1024+len(c.Seccomp)))
	w.u32(c.Flags)
	w.u32(c.Devices)
	w.str(c.Hostname)
	w.u32(uint32(len(c.Joins)))
	for _, j := range c.Joins {
		w.u32(j.FD)
		w.u32(j.Type)
	}
	w.u32(uint32(len(c.Mounts)))
	for i := range c.Mounts {
		m := &c.Mounts[i]
		w.u32(m.Kind)
		w.u32(m.Flags)
		w.str(m.Target)
		w.str(m.FSType)
		w.strs(m.Options)
		w.u64(m.Attr)
		w.u32(m.FD)
	}
	w.u32(uint32(len(c.Files)))
	for _, f := range c.Files {
		w.str(f.Target)
		w.bytes(f.Content)
	}
	w.strs(c.Masked)
	w.strs(c.Readonly)
	w.u32(uint32(len(c.Rlimits)))
	for _, l := range c.Rlimits {
		w.u32(l.Resource)
		w.u64(l.Soft)
		w.u64(l.Hard)
	}
	w.u64(c.Bounding)
	w.u64(c.Effective)
	w.u32(c.UID)
	w.u32(c.GID)
	w.u32(uint32(len(c.Groups)))
	for _, g := range c.Groups {
		w.u32(g)
	}
	w.bytes(c.Seccomp)
	w.bytes(c.Asking)
	w.str(c.AppArmor)
	w.u32(c.Rows)
	w.u32(c.Columns)
	w.str(c.Cwd)
	w.strs(c.Args)
	w.strs(c.Env)
	return w
}

// Header returns what precedes a config of n bytes with fds descriptors.
func Header(n, fds int) []byte {
	w := writer(make([]byte, 0, HeaderSize))
	w.u64(Magic)
	w.u64(uint64(n))
	w.u32(uint32(fds))
	return w
}

// Decode reads the wire form. ok is false when it is malformed; what it names
// is not checked.
func Decode(b []byte) (c *Config, ok bool) {
	r := &reader{b: b}
	c = &Config{Flags: r.u32(), Devices: r.u32(), Hostname: r.str()}
	for n := r.count(); n > 0; n-- {
		c.Joins = append(c.Joins, Join{FD: r.u32(), Type: r.u32()})
	}
	for n := r.count(); n > 0; n-- {
		c.Mounts = append(c.Mounts, Mount{Kind: r.u32(), Flags: r.u32(), Target: r.str(),
			FSType: r.str(), Options: r.strs(), Attr: r.u64(), FD: r.u32()})
	}
	for n := r.count(); n > 0; n-- {
		c.Files = append(c.Files, File{Target: r.str(), Content: r.bytes()})
	}
	c.Masked, c.Readonly = r.strs(), r.strs()
	for n := r.count(); n > 0; n-- {
		c.Rlimits = append(c.Rlimits, Rlimit{Resource: r.u32(), Soft: r.u64(), Hard: r.u64()})
	}
	c.Bounding, c.Effective = r.u64(), r.u64()
	c.UID, c.GID = r.u32(), r.u32()
	for n := r.count(); n > 0; n-- {
		c.Groups = append(c.Groups, r.u32())
	}
	c.Seccomp = r.bytes()
	c.Asking = r.bytes()
	c.AppArmor = r.str()
	c.Rows, c.Columns = r.u32(), r.u32()
	c.Cwd = r.str()
	c.Args, c.Env = r.strs(), r.strs()
	return c, !r.bad && len(r.b) == 0
}

// DecodeReport reads a report's fixed part.
func DecodeReport(b [ReportSize]byte) (kind byte, errno uint32, text int) {
	r := &reader{b: b[1:]}
	errno = r.u32()
	return b[0], errno, int(r.u32())
}

type writer []byte

func (w *writer) u32(v uint32) {
	*w = append(*w, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func (w *writer) u64(v uint64) {
	w.u32(uint32(v))
	w.u32(uint32(v >> 32))
}

func (w *writer) bytes(b []byte) {
	w.u32(uint32(len(b)))
	*w = append(*w, b...)
}

func (w *writer) str(s string) {
	w.u32(uint32(len(s)))
	*w = append(*w, s...)
}

func (w *writer) strs(list []string) {
	w.u32(uint32(len(list)))
	for _, s := range list {
		w.str(s)
	}
}

// reader takes values from the front of b. After the first that is not there
// it is bad, and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u32() uint32 {
	b := r.take(4)
	if b == nil {
		return 0
	}
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func (r *reader) u64() uint64 {
	low := r.u32()
	return uint64(low) | uint64(r.u32())<<32
}

// count reads the length of a list. Every element takes four bytes at least,
// so a larger count is malformed, and a loop over it is bounded by the input.
func (r *reader) count() int {
	n := r.u32()
	if r.bad || uint64(n)*4 > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) bytes() []byte { return r.take(int(r.u32())) }

func (r *reader) str() string { return string(r.bytes()) }

func (r *reader) strs() []string {
	n := r.count()
	list := make([]string, 0, n)
	for ; n > 0; n-- {
		list = append(list, r.str())
	}
	return list
}
