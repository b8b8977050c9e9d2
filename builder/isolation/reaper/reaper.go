package reaper

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// EndAll kills every descendant of this process. With first 0 it also reaps
// them all; otherwise another goroutine reaps, and first is that which it
// waits for.
//
// Everything is stopped before anything is killed: what is stopped forks no
// more, and still counts against the limits of what does.
func EndAll(first int) {
	if first == 0 && reapAll() {
		return // the ordinary step leaves nothing
	}
	stopped := map[int]bool{}
	for range 1000 {
		fresh := 0
		for pid, parent := range descendants() {
			if !stopped[pid] && signalChild(pid, parent, unix.SIGSTOP) {
				stopped[pid] = true
				fresh++
			}
		}
		if fresh == 0 {
			break
		}
	}
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		tree := descendants()
		for pid, parent := range tree {
			signalChild(pid, parent, unix.SIGKILL)
		}
		if first != 0 {
			if len(tree) == 0 || !alive(tree) {
				return
			}
			time.Sleep(pause)
			continue
		}
		if reapAll() {
			return
		}
		time.Sleep(pause)
	}
}

// Wait reaps children until first is among them, and returns how that ended.
func Wait(first int) syscall.WaitStatus {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, 0, nil)
		if pid == first {
			return st
		}
		if err != nil && err != syscall.EINTR { //nolint:errorlint // a bare errno
			return 255 << 8 // cannot be: first is a child until waited for
		}
	}
}

// reapAll reaps what has ended, and reports whether nothing is left.
func reapAll() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.ECHILD) {
			return true
		}
		if pid <= 0 && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// alive reports whether any process in tree is more than a zombie.
func alive(tree map[int]int) bool {
	for pid := range tree {
		if _, state := stat(pid); state != 'Z' && state != 'X' && state != 0 {
			return true
		}
	}
	return false
}

// signalChild signals pid if it is still parent's child: a descriptor keeps
// the number from meaning another process meanwhile.
func signalChild(pid, parent int, sig unix.Signal) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	now, _ := stat(pid)
	if now != parent && now != os.Getpid() {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// descendants returns all processes below this one with their parents.
func descendants() map[int]int {
	found := map[int]int{}
	var walk func(int)
	list := childrenOf
	if _, err := os.Stat("/proc/thread-self/children"); err != nil { // CONFIG_PROC_CHILDREN
		all := allChildren()
		list = func(pid int) []int { return all[pid] }
	}
	walk = func(parent int) {
		for _, pid := range list(parent) {
			if _, again := found[pid]; !again {
				found[pid] = parent
				walk(pid)
			}
		}
	}
	walk(os.Getpid())
	return found
}

// childrenOf asks the kernel for the children of each thread.
func childrenOf(pid int) (children []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil // gone
	}
	for _, t := range threads {
		b, err := os.ReadFile(dir + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(b) {
			if child, err := strconv.Atoi(string(f)); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// allChildren reads the parent of every process.
func allChildren() map[int][]int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, _ := stat(pid); parent != 0 {
			children[parent] = append(children[parent], pid)
		}
	}
	return children
}

// stat returns a process's parent and state, or zeros when it is gone.
func stat(pid int) (parent int, state byte) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The name, in parentheses, may hold anything.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 2 || len(f[0]) != 1 {
		return 0, 0
	}
	parent, err = strconv.Atoi(string(f[1]))
	if err != nil {
		return 0, 0
	}
	return parent, f[0][0]
}
