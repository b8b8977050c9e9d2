package binfmt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Dir is where binfmt_misc is mounted.
const Dir = "/proc/sys/fs/binfmt_misc"

// Handler is what executes the programs of a platform.
type Handler struct {
	// Name is the registration's; "" when it is not known, since
	// binfmt_misc is not mounted.
	Name string
	// Interpreter is the emulator's path, "" when it is not known.
	Interpreter string
	// Fixed reports that the emulator need not be in the roots that it works
	// in: the kernel has it open (flag F).
	Fixed bool
}

// Native reports whether the machine executes programs of the platform itself.
// Variants are not looked at: what a processor lacks shows when it runs.
func Native(p define.Platform) bool {
	p = define.NormalizePlatform(p)
	return p.OS == runtime.GOOS && native(p.Architecture)
}

// Find returns what executes programs of the platform here; nil when the
// machine does so itself. tmp is a directory for a file to try; "" is the
// system's. When nothing does, the error says what to install and wraps
// define.ErrUnsupported.
func Find(p define.Platform, tmp string) (*Handler, error) { return find(Dir, p, tmp) }

func find(dir string, p define.Platform, tmp string) (*Handler, error) {
	p = define.NormalizePlatform(p)
	host := define.HostPlatform()
	if p.OS != host.OS {
		return nil, fmt.Errorf("programs for %s cannot run on %s, with an emulator neither: leave out RUN for this platform: %w",
			define.FormatPlatform(p), define.FormatPlatform(host), define.ErrUnsupported)
	}
	if native(p.Architecture) {
		return nil, nil
	}
	head, ok := elfHead(p.Architecture)
	if !ok {
		return nil, fmt.Errorf("programs for %s cannot run on %s: no emulator of the architecture %s is known: %w",
			define.FormatPlatform(p), define.FormatPlatform(host), p.Architecture, define.ErrUnsupported)
	}
	handlers, mounted := read(dir)
	var disabled string
	for _, h := range handlers {
		switch {
		case !h.matches(head):
		case h.enabled:
			return &Handler{Name: h.name, Interpreter: h.interpreter, Fixed: h.fixed}, nil
		default:
			disabled = h.name
		}
	}
	if disabled != "" {
		return nil, fmt.Errorf("programs for %s cannot run on %s: the emulator %s is switched off: write 1 to %s: %w",
			define.FormatPlatform(p), define.FormatPlatform(host), disabled, filepath.Join(dir, disabled), define.ErrUnsupported)
	}
	if !mounted {
		h, err := try(head, tmp)
		if err != nil {
			return nil, fmt.Errorf("finding out whether programs for %s can run: %w", define.FormatPlatform(p), err)
		}
		if h != nil {
			return h, nil
		}
	}
	return nil, fmt.Errorf("programs for %s cannot run on %s: no emulator is registered with the kernel (binfmt_misc): install qemu-user-static, or qemu-user-binfmt: %w",
		define.FormatPlatform(p), define.FormatPlatform(host), define.ErrUnsupported)
}

func native(arch string) bool {
	switch {
	case arch == runtime.GOARCH:
		return true
	case runtime.GOARCH == "amd64":
		return arch == "386"
	case runtime.GOARCH == "arm64" && arch == "arm":
		return runs32()
	}
	return false
}

// registration is one file of binfmt_misc.
type registration struct {
	name, interpreter string
	enabled, fixed    bool
	offset            int
	magic, mask       []byte
}

// matches does what load_misc_binary of fs/binfmt_misc.c does with the head
// of a file.
func (r *registration) matches(head []byte) bool {
	if len(r.magic) == 0 || r.offset < 0 || r.offset+len(r.magic) > len(head) {
		return false
	}
	for i, m := range r.magic {
		difference := m ^ head[r.offset+i]
		if i < len(r.mask) {
			difference &= r.mask[i]
		}
		if difference != 0 {
			return false
		}
	}
	return true
}

// read reads all registrations. What cannot be read is left out: an emulator
// that is found is a convenience, and steps fail clearly without.
func read(dir string) (all []*registration, mounted bool) {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return nil, false
	}
	on := strings.TrimSpace(string(status)) != "disabled"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		if e.Name() == "status" || e.Name() == "register" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if r, ok := parse(e.Name(), string(text)); ok {
			r.enabled = r.enabled && on
			all = append(all, r)
		}
	}
	return all, true
}

// maxHead is as much of a file as the kernel compares (BINPRM_BUF_SIZE).
const maxHead = 256

// parse reads what bm_entry_read writes. A registration by a file name's
// ending is none for us.
func parse(name, text string) (*registration, bool) {
	r := &registration{name: name}
	for _, line := range strings.Split(text, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "enabled":
			r.enabled = true
		case "interpreter":
			r.interpreter = value
		case "flags:":
			r.fixed = strings.Contains(value, "F")
		case "offset":
			r.offset, err = strconv.Atoi(value)
		case "magic":
			r.magic, err = hex.DecodeString(value)
		case "mask":
			r.mask, err = hex.DecodeString(value)
		}
		if err != nil || len(r.magic) > maxHead || r.offset > maxHead {
			return nil, false
		}
	}
	return r, len(r.magic) > 0
}

// elfHead is the ELF header (System V ABI, "ELF Header") of an executable
// file of the architecture that holds nothing else.
func elfHead(arch string) ([]byte, bool) {
	m, ok := machines[arch]
	if !ok {
		return nil, false
	}
	head := make([]byte, 64)
	copy(head, "\x7fELF")
	head[4], head[5], head[6] = 1, 1, 1
	if m.wide {
		head[4] = 2
	}
	put := func(at int, v uint16) { head[at], head[at+1] = byte(v), byte(v>>8) }
	if m.big {
		head[5] = 2
		put = func(at int, v uint16) { head[at], head[at+1] = byte(v>>8), byte(v) }
	}
	put(16, 2) // ET_EXEC
	put(18, m.number)
	if m.big {
		head[23] = 1
	} else {
		head[20] = 1
	}
	return head, true
}

// machines are Go's names of architectures with e_machine, the word size and
// the byte order.
var machines = map[string]struct {
	number    uint16
	wide, big bool
}{
	"386": {3, false, false}, "amd64": {62, true, false},
	"arm": {40, false, false}, "arm64": {183, true, false},
	"loong64": {258, true, false},
	"mips":    {8, false, true}, "mipsle": {8, false, false}, "mips64": {8, true, true}, "mips64le": {8, true, false},
	"ppc": {20, false, true}, "ppc64": {21, true, true}, "ppc64le": {21, true, false},
	"riscv64": {243, true, false}, "s390x": {22, true, true}, "sparc64": {43, true, true},
}

// try executes a file that is a head and nothing more, in a root that holds
// nothing else.
func try(head []byte, tmp string) (h *Handler, err error) {
	dir, err := os.MkdirTemp(tmp, "strata-exec-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "head"), head, 0o700); err != nil {
		return nil, err
	}
	return execute(dir, "head")
}
