package main

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Memory is that of all processes together: two children that hold as much as
// one, at the same time, hold twice as much.
func TestMemory(t *testing.T) {
	t.Parallel()
	// A shell variable of 16 MiB, which is there until all have theirs.
	hold := func(names ...string) string {
		dir, all, text := t.TempDir(), "", ""
		for _, name := range names {
			all += " && [ -e " + dir + "/" + name + " ]"
		}
		for _, name := range names {
			text += `(x=$(head -c 16777216 /dev/zero | tr '\0' x); : >` + dir + "/" + name + "; until :" + all + "; do sleep 0.05; done; sleep 1; : ${#x}) & "
		}
		return text + "wait"
	}
	one, err := measure(t.Context(), exec.Command("sh", "-c", hold("a")), order{Sample: true})
	if err != nil {
		t.Fatal(err)
	}
	two, err := measure(t.Context(), exec.Command("sh", "-c", hold("a", "b")), order{Sample: true})
	if err != nil {
		t.Fatal(err)
	}
	const block = 16 << 20
	if one.Memory < block || two.Memory < 2*block {
		t.Errorf("one process had %d bytes, two %d", one.Memory, two.Memory)
	}
	if none, err := measure(t.Context(), exec.Command("true"), order{}); err != nil || none.Memory != 0 {
		t.Errorf("unasked: %+v, %v", none, err)
	}
}

func TestKilobytes(t *testing.T) {
	t.Parallel()
	const rollup = "556a341ba000-7ffd98286000 ---p 00000000 00:00 0   [rollup]\nRss:   1752 kB\nPss:    276 kB\nPss_Dirty:  112 kB\n"
	if n := kilobytes(rollup, "Pss:"); n != 276<<10 {
		t.Errorf("%d", n)
	}
	if n := kilobytes("", "Pss:"); n != 0 {
		t.Errorf("%d", n)
	}
}

// A process whose parent has gone is still the tool's.
func TestTree(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "sleep 60 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // killed
	tr := newTree(cmd.Process.Pid)
	for until := time.Now().Add(time.Minute); len(tr.look()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the child was not found")
		}
	}
	child := tr.look()[0]
	if parent, ok := parentOf(child); !ok || parent != cmd.Process.Pid {
		t.Errorf("%d is the parent of %d, %v", parent, child, ok)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if left := tr.look(); len(left) != 1 || left[0] != child {
		t.Errorf("members %v, want %d", left, child)
	}
	_ = syscall.Kill(child, syscall.SIGKILL)
	if _, ok := parentOf(1 << 30); ok {
		t.Error("a process that does not exist has a parent")
	}
}

// A run that is ended leaves no process, not even one in a session of its own
// whose parent has gone.
func TestMeasureEnds(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/pid"
	_, err := measure(deadline(t, file), exec.Command("sh", "-c", "setsid sh -c 'echo $$ >"+file+"; exec sleep 100' & sleep 100"), order{})
	if err == nil {
		t.Fatal("a run that was ended was measured")
	}
	b, err := os.ReadFile(file)
	pid := atoi(string(b))
	if err != nil || pid == 0 {
		t.Fatalf("%q, %v", b, err)
	}
	for until := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d is left", pid)
		}
	}
}

// deadline ends when the file has content.
func deadline(t *testing.T, file string) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for until := time.Now().Add(time.Minute); time.Now().Before(until) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			if b, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(b), "\n") {
				return
			}
		}
	}()
	return ctx
}

func atoi(text string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(text))
	return n
}
