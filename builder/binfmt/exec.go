package binfmt

import (
	"errors"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// execute starts the file, whose content no program can do anything with: an
// emulator ends at once with a status that says so. In the directory as its
// root, an emulator is found only if the kernel has it open and it needs no
// loader; there ENOENT is about the emulator.
func execute(dir, name string) (*Handler, error) {
	cmd := exec.Command("/" + name)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: dir}
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil, errors.As(err, &ended):
		return &Handler{Fixed: true}, nil
	case errors.Is(err, unix.ENOEXEC):
		return nil, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELIBBAD):
		return &Handler{}, nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		// No chroot(2), or no execution at all, here: the step will tell.
		return &Handler{Fixed: true}, nil
	}
	return nil, err
}

// runs32 reports whether an arm64 kernel executes 32-bit programs: the
// personality is refused where the processor has no AArch32 at EL0
// (arch/arm64/kernel/sys.c).
func runs32() bool {
	const (
		ask     = 0xffffffff
		linux32 = 8 // PER_LINUX32, linux/personality.h
	)
	ok := make(chan bool)
	go func() {
		// The personality is the thread's, which ends with the goroutine.
		runtime.LockOSThread()
		before, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, ask, 0, 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_PERSONALITY, linux32, 0, 0)
		}
		if errno == 0 {
			unix.RawSyscall(unix.SYS_PERSONALITY, before, 0, 0)
		}
		ok <- errno == 0
	}()
	return <-ok
}
