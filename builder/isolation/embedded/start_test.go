package embedded

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStartBesideOthers starts inits while descriptors come and go: what a
// child executes must not be taken from it by Go's own pipe.
func TestStartBesideOthers(t *testing.T) {
	flags := uintptr(namespaceFlags)
	if os.Geteuid() != 0 {
		flags |= unix.CLONE_NEWUSER
	}
	s, err := newStarter()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	p, err := s.start(flags)
	if err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	p.end()
	var stop atomic.Bool
	var others sync.WaitGroup
	defer others.Wait()
	defer stop.Store(true)
	for n := range 4 {
		others.Go(func() {
			for !stop.Load() {
				var fds []int
				for range n + 1 {
					if fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
						fds = append(fds, fd)
					}
				}
				for _, fd := range fds {
					unix.Close(fd)
				}
			}
		})
	}
	for i := range 400 {
		p, err := s.start(flags)
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		p.end()
	}
}

// TestSocketsAbove: the same, where it can be arranged: Go's pipe gets a lower
// number than the child's socket, and the program has the one behind that.
func TestSocketsAbove(t *testing.T) {
	var low []int
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if fd >= beyondChild-2 { // of these two is the pair
			unix.Close(fd)
			break
		}
		low = append(low, fd)
	}
	program, err := openSelf()
	if err != nil {
		for _, fd := range low {
			unix.Close(fd)
		}
		t.Skipf("no mount can be cloned here: %v", err)
	}
	defer program.Close()
	ours, theirs, err := socketsAbove(program)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ours)
	defer theirs.Close()
	for _, fd := range low {
		unix.Close(fd)
	}
	if theirs.Fd() <= program.Fd() {
		t.Errorf("the child's socket is %d, the program %d", theirs.Fd(), program.Fd())
	}
	child, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), []string{"x", "-test.run=^$"},
		&os.ProcAttr{Dir: "/", Env: []string{}, Files: []*os.File{nil, nil, nil, theirs}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.Wait(); err != nil {
		t.Error(err)
	}
}
