package chroot

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

// dropPrivileges makes this thread what the step is to be: limits, bounding
// set, filter, ids, capabilities. What follows is execve.
//
// System calls about credentials are made raw: they concern this thread only,
// and this is the one that executes the program.
func dropPrivileges(j *job) error {
	p := j.Spec.Process
	set := wanted(p.Capabilities)
	if !j.Mounts {
		// chroot(2) leads out of a chroot.
		for i := range set {
			set[i] &^= 1 << unix.CAP_SYS_CHROOT
		}
	}
	for n := range 64 {
		if set[bounding]&(1<<n) != 0 {
			continue
		}
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil || on == 0 {
			continue // beyond the last, or not there
		}
		if err := prctl(unix.PR_CAPBSET_DROP, uintptr(n)); err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	// Without no_new_privs, loading needs what is given up next. Without
	// either, a filter cannot be had (doc.go).
	early := len(j.Filter) > 0 && !p.NoNewPrivileges && hasCapability(unix.CAP_SYS_ADMIN)
	if err := setLimits(p.Rlimits); err != nil {
		return err
	}
	if early {
		if err := loadFilter(j.Filter); err != nil {
			return err
		}
	}
	if err := setIDs(p.User, j.KeepGroups); err != nil {
		return err
	}
	if err := setCapabilities(set); err != nil {
		return err
	}
	// Changing ids has cleared it. Should the monitor have died in between, the
	// session is nobody's child; the next write to a pipe ends it.
	if err := prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL)); err != nil {
		return fmt.Errorf("parent death signal: %w", err)
	}
	if err := resetSignals(); err != nil {
		return err
	}
	if p.NoNewPrivileges {
		if err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
		if len(j.Filter) > 0 {
			return loadFilter(j.Filter)
		}
	}
	return nil
}

func prctl(option int, arg uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, uintptr(option), arg, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// The sets of capabilities that matter.
const (
	bounding = iota
	effective
	permitted
)

// wanted translates names to bits.
func wanted(c *specs.LinuxCapabilities) (set [3]uint64) {
	if c == nil {
		return set
	}
	for i, names := range [...][]string{bounding: c.Bounding, effective: c.Effective, permitted: c.Permitted} {
		for _, name := range names {
			if n, ok := isolation.CapabilityNumber(name); ok {
				set[i] |= 1 << n
			}
		}
	}
	return set
}

// setCapabilities gives up what is not in set; what we have not ourselves
// cannot be given.
func setCapabilities(set [3]uint64) error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Permitted = uint32(set[permitted]>>(32*i)) & have[i].Permitted
		data[i].Effective = uint32(set[effective]>>(32*i)) & data[i].Permitted
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("capabilities: %w", errno)
	}
	return nil
}

// setIDs becomes the step's user.
func setIDs(u specs.User, keepGroups bool) error {
	var list unsafe.Pointer
	if len(u.AdditionalGids) > 0 {
		list = unsafe.Pointer(&u.AdditionalGids[0])
	}
	if !keepGroups {
		_, _, errno := unix.RawSyscall(sysSetgroups, uintptr(len(u.AdditionalGids)), uintptr(list), 0)
		if errno != 0 && (len(u.AdditionalGids) > 0 || errno != unix.EPERM) {
			// Denied in user namespaces that map one id: nothing can be done, and
			// with nothing asked for nothing is lost.
			return fmt.Errorf("supplementary groups: %w", errno)
		}
	}
	gid, uid := uintptr(u.GID), uintptr(u.UID)
	if _, _, errno := unix.RawSyscall(sysSetresgid, gid, gid, gid); errno != 0 {
		return fmt.Errorf("group %d: %w", u.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(sysSetresuid, uid, uid, uid); errno != 0 {
		return fmt.Errorf("user %d: %w", u.UID, errno)
	}
	return nil
}

// setLimits sets resource limits, lowered to what we may give.
func setLimits(limits []specs.POSIXRlimit) error {
	for _, l := range limits {
		n, ok := isolation.RlimitNumber(l.Type)
		if !ok {
			return fmt.Errorf("resource limit %s: not known", l.Type)
		}
		want := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		err := unix.Setrlimit(n, &want)
		if errors.Is(err, unix.EPERM) {
			var have unix.Rlimit
			if err = unix.Getrlimit(n, &have); err == nil {
				want.Max = min(want.Max, have.Max)
				want.Cur = min(want.Cur, want.Max)
				err = unix.Setrlimit(n, &want)
			}
		}
		if err != nil {
			return fmt.Errorf("resource limit %s: %w", l.Type, err)
		}
	}
	return nil
}

// loadFilter attaches a seccomp program to this thread.
func loadFilter(filter []byte) error {
	prog := unix.SockFprog{Len: uint16(len(filter) / unix.SizeofSockFilter), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("seccomp filter: %w", errno)
	}
	return nil
}

// resetSignals gives every signal its default and unblocks all, right before
// execve. A handler ends there by itself, but what was ignored stays ignored,
// and Go's own handling leaves out the signals that C libraries use (32 to
// 34), which a parent may have ignored too.
func resetSignals() error {
	var action [64]byte // struct sigaction: SIG_DFL, no flags, empty mask
	for n := uintptr(1); n <= 64; n++ {
		// SIGKILL and SIGSTOP refuse, and have their default anyway.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	return resetMask()
}

// resetMask unblocks all signals.
func resetMask() error {
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return fmt.Errorf("signal mask: %w", err)
	}
	return nil
}
