package userns

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// workerVariable tells the worker what it is: "<descriptor>:<clone flags>".
// It is removed as soon as it has been read.
const workerVariable = "_STRATA_WORKER"

// Messages between the front and the worker: words separated by line ends.
const (
	messageGo     = "go"     // to the worker: the maps are written; notes follow
	messageReady  = "ready"  // from the worker
	messageSignal = "signal" // to the worker: a signal's number follows
)

// link is one end of the connection between the front and its worker.
type link struct{ f *os.File }

// newLink makes a connection. The worker's end is inherited by number, one
// that shells do not use, so that descriptors that the user opened for the
// program keep theirs.
func newLink() (ours, theirs *link, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	high, err := unix.FcntlInt(uintptr(pair[1]), unix.F_DUPFD, 200)
	if err != nil {
		high, err = unix.FcntlInt(uintptr(pair[1]), unix.F_DUPFD, 4)
	}
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, nil, err
	}
	return &link{os.NewFile(uintptr(pair[0]), "worker")}, &link{os.NewFile(uintptr(high), "front")}, nil
}

func (l *link) number() int { return int(l.f.Fd()) }
func (l *link) close()      { l.f.Close() }

func (l *link) send(words ...string) error {
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "\n", " ")
	}
	_, err := l.f.WriteString(strings.Join(words, "\n"))
	return err
}

func (l *link) receive() ([]string, error) {
	var b [16 << 10]byte
	n, err := l.f.Read(b[:])
	if err == nil && n == 0 {
		err = errors.New("empty message")
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(string(b[:n]), "\n"), nil
}

// workerMark is what a worker finds in its environment.
type workerMark struct {
	*link
	flags uintptr
}

// workerLink tells a worker, by its environment and by what the descriptor
// is: the variable alone, which anybody may set, is not believed.
func workerLink() (workerMark, bool, error) {
	v, ok := os.LookupEnv(workerVariable)
	if !ok {
		return workerMark{}, false, nil
	}
	os.Unsetenv(workerVariable)
	fdText, flagText, _ := strings.Cut(v, ":")
	fd, err1 := strconv.Atoi(fdText)
	flags, err2 := strconv.ParseUint(flagText, 10, 64)
	if err1 != nil || err2 != nil || fd < 3 {
		return workerMark{}, false, nil
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return workerMark{}, false, nil
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return workerMark{}, false, err
	}
	return workerMark{&link{os.NewFile(uintptr(fd), "front")}, uintptr(flags)}, true, nil
}
