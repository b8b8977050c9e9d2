package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sampleEvery is the pause between two looks at the memory.
const sampleEvery = time.Millisecond

// sampler adds up, again and again, what the descendants of a process hold,
// and keeps the largest sum. Of a page that several processes map, each counts
// its part (proportional set size, proc_pid_smaps(5)), so that a program that
// runs as two processes is not counted twice, and neither is the page cache,
// which a control group's memory.peak would count with the files that are
// copied.
type sampler struct {
	t    tree
	peak int64
	quit chan struct{}
	done chan struct{}
}

// newSampler looks at the descendants of pid, and at those of daemon with
// itself, unless that is 0, until stop.
func newSampler(pid, daemon int) *sampler {
	s := &sampler{t: newTree(pid), quit: make(chan struct{}), done: make(chan struct{})}
	if daemon != 0 {
		s.t.members[daemon] = true
	}
	go func() {
		defer close(s.done)
		for {
			s.look()
			select {
			case <-s.quit:
				return
			case <-time.After(sampleEvery):
			}
		}
	}()
	return s
}

func (s *sampler) stop() int64 {
	close(s.quit)
	<-s.done
	return s.peak
}

func (s *sampler) look() {
	sum := int64(0)
	for _, pid := range s.t.look() {
		sum += memoryOf(pid)
	}
	s.peak = max(s.peak, sum)
}

// memoryOf is a process's part of the pages that it maps; 0 of one that ended.
// Where that may not be read, it is what belongs to the process alone.
func memoryOf(pid int) int64 {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if b, err := os.ReadFile(filepath.Join(dir, "smaps_rollup")); err == nil {
		return kilobytes(string(b), "Pss:")
	}
	b, _ := os.ReadFile(filepath.Join(dir, "status"))
	return kilobytes(string(b), "RssAnon:")
}

// kilobytes returns the value of a line "KEY N kB", in bytes; 0 is none.
func kilobytes(text, key string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// tree finds the descendants of processes. The children lists of /proc are
// not in every kernel (CONFIG_PROC_CHILDREN): each new process is asked for
// its parent, once.
type tree struct {
	root    int // its descendants are members, itself is not
	members map[int]bool
	others  map[int]bool
}

func newTree(root int) tree {
	return tree{root: root, members: map[int]bool{}, others: map[int]bool{}}
}

// look returns the members that live now.
func (t *tree) look() []int {
	alive := map[int]bool{}
	var fresh []int
	for _, pid := range processes() {
		alive[pid] = true
		if !t.members[pid] && !t.others[pid] {
			fresh = append(fresh, pid)
		}
	}
	for _, known := range []map[int]bool{t.members, t.others} {
		for pid := range known {
			if !alive[pid] {
				delete(known, pid)
			}
		}
	}
	parents := map[int]int{}
	for _, pid := range fresh {
		if parent, ok := parentOf(pid); ok {
			parents[pid] = parent
		}
	}
	for found := true; found; {
		found = false
		for pid, parent := range parents {
			if parent == t.root || t.members[parent] {
				t.members[pid], found = true, true
				delete(parents, pid)
			}
		}
	}
	for pid := range parents {
		t.others[pid] = true
	}
	list := make([]int, 0, len(t.members))
	for pid := range t.members {
		list = append(list, pid)
	}
	return list
}

// processes are those that /proc shows.
func processes() (pids []int) {
	f, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf reads field 4 of proc_pid_stat(5), after a name that may hold
// anything.
func parentOf(pid int) (int, bool) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(f[1])
	return parent, err == nil
}

// endDescendants kills what descends from the process, until nothing does.
func endDescendants(pid int, limit time.Duration) {
	for until := time.Now().Add(limit); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		t := newTree(pid)
		left := t.look()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		if pid != os.Getpid() {
			continue
		}
		for { // our own are gone only when they are waited for
			var status syscall.WaitStatus
			if got, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); got <= 0 || err != nil {
				break
			}
		}
	}
}
