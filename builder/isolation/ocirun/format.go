package ocirun

import (
	"bytes"
	"encoding/binary"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

// wrongFormat reports whether the kernel cannot have executed the step's
// program: a file that is no script and no ELF file of this machine's.
// Where handlers of other formats are registered (binfmt_misc), and for
// programs that lie on a volume, the answer is no.
func wrongFormat(s *isolation.Step) bool {
	if handlers, err := os.ReadDir("/proc/sys/fs/binfmt_misc"); err == nil {
		for _, h := range handlers {
			if h.Name() != "register" && h.Name() != "status" {
				return false
			}
		}
	}
	f := openProgram(s)
	if f == nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := f.ReadAt(head, 0)
	if n == 0 && err == nil {
		return false
	}
	return !loadable(head[:n])
}

// openProgram finds the program as the runtime does.
func openProgram(s *isolation.Step) *os.File {
	p := s.Spec.Process
	name := p.Args[0]
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(p.Cwd, name)
		}
		return openInRoot(s.Root, name)
	}
	for _, e := range p.Env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(list, ":") {
			if f := openInRoot(s.Root, path.Join("/", dir, name)); f != nil {
				return f
			}
		}
	}
	return nil
}

// openInRoot opens a regular file, or returns nil.
func openInRoot(root *os.File, unsafeName string) *os.File {
	fd, err := unix.Openat2(int(root.Fd()), unsafeName, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil
	}
	f := os.NewFile(uintptr(fd), unsafeName)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil
	}
	return f
}

// machines are the values of e_machine that a kernel can load (elf.h).
var machines = [...]struct {
	goarch string
	ids    []uint16
}{
	{"amd64", []uint16{62, 3, 6}}, {"386", []uint16{3, 6}}, {"arm64", []uint16{183, 40}}, {"arm", []uint16{40}},
	{"riscv64", []uint16{243}}, {"ppc64le", []uint16{21, 20}}, {"s390x", []uint16{22}}, {"loong64", []uint16{258}},
}

// loadable reports whether head can begin a program. Formats of other
// machines, which this table does not have, are taken for loadable.
func loadable(head []byte) bool {
	if bytes.HasPrefix(head, []byte("#!")) {
		return true
	}
	if !bytes.HasPrefix(head, []byte("\x7fELF")) || len(head) < 52 {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if head[5] == 2 {
		order = binary.BigEndian
	}
	if kind := order.Uint16(head[16:]); kind != 2 && kind != 3 { // ET_EXEC, ET_DYN
		return false
	}
	for _, m := range machines {
		if m.goarch != runtime.GOARCH {
			continue
		}
		for _, id := range m.ids {
			if order.Uint16(head[18:]) == id {
				return true
			}
		}
		return false
	}
	return true
}
