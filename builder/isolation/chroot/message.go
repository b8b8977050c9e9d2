package chroot

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation"
)

// Names under which this program starts itself.
const (
	monitorName = "strata-chroot-monitor"
	initName    = "strata-chroot-init"
)

// Descriptors of monitor and init.
const (
	controlFd = 3 + iota
	rootFd
	consoleFd
	firstTreeFd
)

// job is what the driver tells the monitor, and the monitor the init.
type job struct {
	// Spec without its seccomp profile.
	Spec   *specs.Spec
	Filter []byte // the compiled profile
	// Mounts says that trees were cloned: the root and the trees are mounts.
	Mounts bool
	// Trees are the descriptors of bind mounts and files, by destination.
	Trees map[string]int
	// Files are the contents of files, where there are no mounts.
	Files    map[string][]byte
	Terminal bool
	// Joined are the descriptors of namespaces to join, by type.
	Joined map[specs.LinuxNamespaceType]int
	// KeepGroups leaves the supplementary groups as they are.
	KeepGroups bool
	// Limits are the directories of the control group that the init is put
	// into.
	Limits []string
	// Group is the path of the cgroup that the monitor is in, "" for none. It
	// is the driver's to remove, or the monitor's when the driver has died.
	Group string
}

// report is what the init tells the monitor when it cannot become the step's
// program, and the monitor the driver at the end.
type report struct {
	// Error is why there was no step.
	Error string
	Errno syscall.Errno
	// Program is what could not be executed, if it was about that.
	Program string
	// Status is how the step's first process ended.
	Status syscall.WaitStatus
	// Left is what went wrong in putting the root back.
	Left string
}

// unexecutable are the errors of execve(2) that are about the program, and not
// about its arguments or the machine.
var unexecutable = []syscall.Errno{
	syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.EPERM, syscall.ENOEXEC, syscall.EISDIR, syscall.ELIBBAD, syscall.ETXTBSY,
}

// err is what Run returns.
func (r *report) err() error {
	switch {
	case r.Program != "" && slices.Contains(unexecutable, r.Errno):
		return isolation.ExecError(r.Program, r.Errno)
	case r.Error != "":
		return stepError{r.Error, r.Errno}
	case r.Left != "":
		return errors.New(r.Left)
	case r.Status.Signaled():
		return &isolation.ExitError{Code: 128 + int(r.Status.Signal()), Signal: int(r.Status.Signal())}
	case r.Status.ExitStatus() != 0:
		return &isolation.ExitError{Code: r.Status.ExitStatus()}
	}
	return nil
}

// stepError is an error of another process with its errno.
type stepError struct {
	text  string
	errno syscall.Errno
}

func (e stepError) Error() string { return "chroot isolation: " + e.text }

func (e stepError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// magic precedes each message.
const magic = 0x73747261

// maxMessage bounds what is read: the kernel takes 6 MiB of arguments and
// environment, which JSON may write six times as long.
const maxMessage = 64 << 20

func writeMessage(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := binary.NativeEndian.AppendUint32(nil, magic)
	head = binary.NativeEndian.AppendUint32(head, uint32(len(b)))
	if _, err := w.Write(append(head, b...)); err != nil {
		return err
	}
	return nil
}

func readMessage(r io.Reader, v any) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.NativeEndian.Uint32(head[4:])
	if binary.NativeEndian.Uint32(head[:]) != magic || n > maxMessage {
		return errors.New("not a message of ours")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// socketPair returns a pair of connected, blocking sockets.
func socketPair() (a, b *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}
