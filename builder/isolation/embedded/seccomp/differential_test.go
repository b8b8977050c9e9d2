package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestLibseccomp compares our programs with libseccomp's.
func TestLibseccomp(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the architectures to compare are written down for amd64")
	}
	tool := filepath.Join(t.TempDir(), "export")
	if out, err := exec.Command("gcc", "-o", tool, "testdata/export.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Skipf("needs gcc and libseccomp's headers (Debian: libseccomp-dev): %v: %s", err, out)
	}
	def, err := Default(stepCaps)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := Default([]string{"CAP_SYS_ADMIN"})
	if err != nil {
		t.Fatal(err)
	}
	both := []specs.Arch{specs.ArchX86}
	rule := func(action specs.LinuxSeccompAction, names string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: strings.Fields(names), Action: action, Args: args, ErrnoRet: errno(13)}
	}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"default": def, "admin": admin,
		"blocklist": {DefaultAction: specs.ActAllow, Architectures: both, Syscalls: []specs.LinuxSyscall{
			rule(specs.ActErrno, "mount socket shmget"), rule(specs.ActTrap, "reboot"), rule(specs.ActKillProcess, "swapon"), rule(specs.ActLog, "sync"),
		}},
		"comparisons": {DefaultAction: specs.ActErrno, Architectures: both, Syscalls: []specs.LinuxSyscall{
			rule(specs.ActAllow, "ioctl", arg(1, specs.OpEqualTo, 0x1_0000_0002, 0)), rule(specs.ActAllow, "fcntl", arg(5, specs.OpNotEqual, 0x1_0000_0002, 0)),
			rule(specs.ActAllow, "read", arg(0, specs.OpLessThan, 0x5_0000_0005, 0)), rule(specs.ActAllow, "write", arg(0, specs.OpLessEqual, 0x5_0000_0005, 0)),
			rule(specs.ActAllow, "close", arg(0, specs.OpGreaterThan, 0x5_0000_0005, 0)), rule(specs.ActAllow, "dup", arg(0, specs.OpGreaterEqual, 0x5_0000_0005, 0)),
			rule(specs.ActAllow, "dup2", arg(0, specs.OpMaskedEqual, 0xf0_0000_00f0, 0x10_0000_0010)),
			rule(specs.ActAllow, "lseek", arg(0, specs.OpNotEqual, 0, 0), arg(1, specs.OpLessThan, 5, 0), arg(2, specs.OpEqualTo, 1, 0)),
			rule(specs.ActTrace, "access", arg(0, specs.OpEqualTo, 1, 0)), rule(specs.ActAllow, "access"), rule(specs.ActTrap, "access"),
		}},
	} {
		t.Run(name, func(t *testing.T) { compareLibseccomp(t, tool, p) })
	}
}

func compareLibseccomp(t *testing.T, tool string, p *specs.LinuxSeccomp) {
	theirs, unknown := exported(t, tool, p)
	ours, err := compile(p, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	e := newEvaluator(p, runtime.GOARCH)
	values := interesting(p)
	n := 0
	for _, a := range e.h.runs {
		for nr := range uint32(e.top[a.column] + 1) {
			if slices.ContainsFunc(e.names[a.column][nr], func(name string) bool { return slices.Contains(unknown, name) }) {
				continue
			}
			sets := [][6]uint64{{}, {1<<64 - 1, 1 << 32, 1, 2, 3, 4}}
			if e.looksAtArgs(a.audit, nr) {
				for i, v := range values {
					sets = append(sets, [6]uint64{v, v, v, v, v, v}, [6]uint64{v, values[(i+1)%len(values)], values[(i+2)%len(values)], 0, v, 1})
				}
			}
			for _, args := range sets {
				if a.narrow {
					for i := range args {
						args[i] &= 0xffffffff // the kernel never shows more
					}
				}
				d := data{nr, a.audit, args}
				want, err1 := run(theirs, d, false)
				got, err2 := run(ours, d, false)
				if err1 != nil || err2 != nil || got != want {
					t.Errorf("%v %v: ours %#x %v, libseccomp's %#x %v", e.names[a.column][nr], d, got, err2, want, err1)
					return
				}
				n++
			}
		}
	}
	t.Logf("%d comparisons, %d instructions against %d; not known to libseccomp: %s", n, len(ours), len(theirs), strings.Join(unknown, " "))
}

// exported runs p through libseccomp as runc does.
func exported(t *testing.T, tool string, p *specs.LinuxSeccomp) (prog []insn, unknown []string) {
	ops := map[specs.LinuxSeccompOperator]int{specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3,
		specs.OpEqualTo: 4, specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7}
	var in strings.Builder
	def := evalAction(p.DefaultAction, p.DefaultErrnoRet)
	fmt.Fprintf(&in, "default %x\n", def)
	if slices.Contains(p.Architectures, specs.ArchX86) {
		fmt.Fprintln(&in, "arch x86")
	}
	for _, s := range p.Syscalls {
		action := evalAction(s.Action, s.ErrnoRet)
		if action == def {
			continue
		}
		for _, name := range s.Names {
			fmt.Fprintf(&in, "rule %x %s %x", action, name, len(s.Args))
			for _, c := range s.Args {
				fmt.Fprintf(&in, " %x %x %x %x", c.Index, ops[c.Op], c.Value, c.ValueTwo)
			}
			fmt.Fprintln(&in)
		}
	}
	cmd := exec.Command(tool)
	cmd.Stdin = strings.NewReader(in.String())
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("libseccomp: %v: %s", err, errOut.String())
	}
	b := out.Bytes()
	for ; len(b) >= 8; b = b[8:] {
		prog = append(prog, insn{binary.NativeEndian.Uint16(b), b[2], b[3], binary.NativeEndian.Uint32(b[4:])})
	}
	return prog, strings.Fields(errOut.String())
}
