// Package seccomp turns a runtime-spec seccomp profile into the classic BPF
// program that seccomp(2) loads, without libseccomp.
//
//	p, err := seccomp.Default(spec.Process.Capabilities.Bounding)
//	prog, err := seccomp.Compile(p)
//	// prog goes to the step's init, which hands it to the kernel.
//
// What a program does with a system call:
//
//   - of an architecture that the profile does not list: the process is
//     killed. The host's own architecture always counts as listed, as it does
//     in libseccomp. Listed architectures that this host's kernel cannot run
//     are skipped, since no call can come from them.
//   - of x32 (a number with bit 30 set on amd64): ENOSYS, listed or not. x32
//     numbers share the audit architecture of amd64, so that a filter which
//     forgot them would be open; hardly a kernel is built with the ABI.
//   - named by an unconditional rule: the action of the first such rule.
//   - named by rules with arguments only: the action of the first rule whose
//     conditions all hold. Conditions that name the same argument more than
//     once in one rule are alternatives, each a rule of its own, as in runc.
//   - numbered above every system call that the profile names: ENOSYS, so
//     that libc falls back for calls that are newer than the profile. This is
//     not done when the default is SCMP_ACT_ALLOW, _LOG or _TRACE.
//   - any other: the profile's default action.
//
// Rules whose action is the default's are dropped, as in runc and crun.
// Names that an architecture (or this package's table) does not have are
// ignored. On 32-bit architectures the low words alone are compared.
// Architectures with the multiplexing calls socketcall(2) and ipc(2) get, for
// an unconditional rule about socket, connect, semget, ..., the same rule
// about the multiplexed form, unless the profile names the multiplexer itself.
//
// The system call numbers come from golang.org/x/sys, by go generate.
package seccomp

//go:generate go run gentable.go
