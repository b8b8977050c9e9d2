package userns

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/userns/early"
)

// Messages between the front and the worker: words separated by line ends.
const (
	messageGo     = "go"     // to the worker: the maps are written; notes follow
	messageReady  = "ready"  // from the worker
	messageSignal = "signal" // to the worker: a signal's number follows
)

// link is one end of the connection between the front and its worker.
type link struct{ f *os.File }

// linkOf takes a descriptor over. It must not block, so that waiting for a
// message takes no thread.
func linkOf(fd int) *link {
	unix.SetNonblock(fd, true)
	return &link{os.NewFile(uintptr(fd), "worker link")}
}

func (l *link) close() { l.f.Close() }

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
	front int // its pid, as its own pid namespace has it
}

// workerLink tells a worker, by its environment and by what the descriptor
// is: the variable alone, which anybody may set, is not believed.
func workerLink() (workerMark, bool) {
	m, ok := readMark()
	os.Unsetenv(early.Variable)
	if !ok {
		return workerMark{}, false
	}
	unix.CloseOnExec(m.fd)
	return workerMark{linkOf(m.fd), m.flags, m.front}, true
}

// Waiting reports a worker that has not been told to work yet. Its front runs
// the same code and may never come to Enter, so until Enter has returned such
// a process must not print anything: the front says it already.
func Waiting() bool {
	_, ok := readMark()
	return ok
}

// mark is the variable's value.
type mark struct {
	fd    int
	flags uintptr
	front int
}

func readMark() (m mark, ok bool) {
	v, ok := os.LookupEnv(early.Variable)
	words := strings.Split(v, ":")
	if !ok || len(words) != 3 {
		return m, false
	}
	fd, err1 := strconv.Atoi(words[0])
	n, err2 := strconv.ParseUint(words[1], 10, 64)
	pid, err3 := strconv.Atoi(words[2])
	if err1 != nil || err2 != nil || err3 != nil || fd < 3 {
		return m, false
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return m, false
	}
	return mark{fd, uintptr(n), pid}, true
}
