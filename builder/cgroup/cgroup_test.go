package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		l    Limits
		want string // in the error; "" is none
	}{
		{Limits{}, ""},
		{Limits{Memory: 64 << 20, MemorySwap: -1, CPUShares: 2, CPUQuota: 1000, CPUPeriod: 1000, CPUSetCPUs: "0-1,3", CPUSetMems: "0", PIDs: -1, Parent: "/a/b"}, ""},
		{Limits{Parent: "a-b.slice"}, ""},
		{Limits{Memory: -1}, "memory limit"},
		{Limits{MemorySwap: 1}, "needs a memory limit"},
		{Limits{Memory: 2, MemorySwap: 1}, "less than"},
		{Limits{Memory: 2, MemorySwap: -2}, "want bytes"},
		{Limits{CPUShares: 1}, "2 to 262144"},
		{Limits{CPUQuota: 999}, "1000 microseconds"},
		{Limits{CPUPeriod: 1000}, "CPU quota"},
		{Limits{CPUQuota: 2000, CPUPeriod: 1000001}, "CPU period"},
		{Limits{CPUSetCPUs: "1-0"}, "set of CPUs"},
		{Limits{CPUSetMems: "x"}, "set of memory nodes"},
		{Limits{CPUSetCPUs: "0,"}, "set of CPUs"},
		{Limits{PIDs: -2}, "processes"},
		{Limits{Parent: "../x"}, "parent"},
		{Limits{Parent: "a/b.slice"}, "b.slice"},
		{Limits{Parent: "a\nb"}, "parent"},
	} {
		err := c.l.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, define.ErrInvalid)) {
			t.Errorf("%+v: %v, want %q", c.l, err, c.want)
		}
	}
}

func TestParseHierarchies(t *testing.T) {
	t.Parallel()
	const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	const v1 = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"35 31 0:32 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"40 31 0:37 / /sys/fs/cgroup/sys\\040temd rw - cgroup cgroup rw,name=systemd\n"
	for _, c := range []struct {
		name, mounts, self string
		want               []hierarchy
	}{
		{"unified", "junk\n" + v2, "0::/user.slice/a b\n", []hierarchy{{top: "/sys/fs/cgroup", own: "/user.slice/a b", unified: true}}},
		{"hybrid", strings.ReplaceAll(v2, "/sys/fs/cgroup", "/sys/fs/cgroup/unified") + v1, "4:memory:/docker/x/y\n2:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", []hierarchy{
			{top: "/sys/fs/cgroup/cpu,cpuacct", own: "/c", controllers: []string{"cpu", "cpuacct"}},
			{top: "/sys/fs/cgroup/memory", own: "/y", controllers: []string{"memory"}},
			{top: "/sys/fs/cgroup/sys temd", own: "/s", controllers: []string{"name=systemd"}},
			{top: "/sys/fs/cgroup/unified", own: "/u", unified: true},
		}},
		{"not to be seen", v1, "4:memory:/other\n", []hierarchy{{top: "/sys/fs/cgroup/memory", own: "/", controllers: []string{"memory"}}}},
		{"nothing", "", "", nil},
	} {
		if got := parseHierarchies(c.mounts, c.self); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestSlicePath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/builds": "/builds", "a.slice": "/a.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice", "x//y/": "/x/y",
	} {
		if got := slicePath(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[int64]string{64 << 20: "64 MiB", 1536 << 20: "1.5 GiB", 4096: "4 KiB", 10: "10 bytes"} {
		if got := size(in); got != want {
			t.Errorf("%d: %s, want %s", in, got, want)
		}
	}
}

// fake is a hierarchy of version 2 in a directory, and a mkdir that puts into
// new groups what a kernel would.
func fake(t *testing.T, own, controllers string) (hierarchy, *maker) {
	t.Helper()
	top := t.TempDir()
	m := newMaker()
	m.mkdir = func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		for _, f := range []string{"cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.weight", "cpu.max",
			"cpuset.cpus", "cpuset.mems", "pids.max"} {
			put(t, filepath.Join(path, f), "")
		}
		put(t, filepath.Join(path, "cgroup.controllers"), controllers)
		return nil
	}
	put(t, filepath.Join(top, "cgroup.subtree_control"), controllers)
	put(t, filepath.Join(top, "cgroup.controllers"), controllers)
	at := top
	for _, p := range strings.Split(strings.Trim(own, "/"), "/") {
		at = filepath.Join(at, p)
		if p != "" {
			if err := m.mkdir(at); err != nil {
				t.Fatal(err)
			}
		}
	}
	return hierarchy{top: top, own: own, unified: true}, m
}

func put(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestUnified looks at what is written to files; no kernel reads them.
func TestUnified(t *testing.T) {
	t.Parallel()
	h, m := fake(t, "/user/scope", "cpuset cpu memory pids")
	l := Limits{Memory: 64 << 20, CPUShares: 1024, CPUQuota: 50000, CPUSetCPUs: "0", PIDs: 9}
	g, err := m.group([]hierarchy{h}, l)
	if err != nil {
		t.Fatal(err)
	}
	defer g.parts[0].lock.Close()
	dir := filepath.Join(h.top, "user/scope", m.name)
	for file, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "67108864", "cpu.weight": "39", "cpu.max": "50000 100000",
		"cpuset.cpus": "0", "cpuset.mems": "", "pids.max": "9", "../cgroup.subtree_control": "+memory +cpu +cpuset +pids",
	} {
		if got := get(t, filepath.Join(dir, file)); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if err := g.Add(4711); err != nil || get(t, filepath.Join(dir, "cgroup.procs")) != "4711" {
		t.Errorf("Add: %v", err)
	}
	put(t, filepath.Join(dir, "memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
	put(t, filepath.Join(dir, "memory.peak"), "67000000\n")
	if got, want := g.OutOfMemory(), "out of memory: limit 64 MiB, peak 63.9 MiB"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUnifiedParentAndMissing(t *testing.T) {
	t.Parallel()
	h, m := fake(t, "/", "memory")
	g, err := m.group([]hierarchy{h}, Limits{Memory: 1 << 20, MemorySwap: -1, Parent: "a-b.slice"})
	if err != nil {
		t.Fatal(err)
	}
	defer g.parts[0].lock.Close()
	dir := filepath.Join(h.top, "a.slice/a-b.slice", m.name)
	if get(t, dir+"/memory.max") != "1048576" || get(t, dir+"/memory.swap.max") != "max" || get(t, h.top+"/a.slice/cgroup.subtree_control") != "+memory" {
		t.Error("limits below the parent are not as asked")
	}
	m.name += "2"
	_, err = m.group([]hierarchy{h}, Limits{PIDs: 3})
	if !errors.Is(err, define.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), "limit of processes") || !strings.Contains(fmt.Sprint(err), "no controller pids") {
		t.Errorf("without the controller: %v", err)
	}
	_, err = m.group(nil, Limits{Memory: 1 << 20})
	if !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("without a hierarchy: %v", err)
	}
}

// TestUnifiedBusy: a group that holds processes gets no controllers for its
// children; the one above it is used.
func TestUnifiedBusy(t *testing.T) {
	t.Parallel()
	h, m := fake(t, "/user/scope", "cpu pids")
	own := filepath.Join(h.top, "user/scope")
	put(t, filepath.Join(own, "cgroup.type"), "domain\n")
	put(t, filepath.Join(own, "cgroup.procs"), "17\n")
	g, err := m.group([]hierarchy{h}, Limits{PIDs: 9})
	if err != nil {
		t.Fatal(err)
	}
	defer g.parts[0].lock.Close()
	if want := filepath.Join(h.top, "user", m.name); g.parts[0].dir != want || get(t, own+"/cgroup.subtree_control") != "" {
		t.Errorf("%s, want %s", g.parts[0].dir, want)
	}
	if invalid(own) {
		t.Error("a usual group is taken for an invalid one")
	}
	put(t, filepath.Join(own, "cgroup.type"), "domain invalid\n")
	if !invalid(own) {
		t.Error("an invalid group is not seen")
	}
}

func TestNoLimitsNoGroup(t *testing.T) {
	t.Parallel()
	g, err := New(Limits{})
	if g != nil || err != nil || g.Add(1) != nil || g.OutOfMemory() != "" || g.Remove() != nil {
		t.Error("a group without limits is not nothing")
	}
}

// TestKernel makes a group where this machine lets us.
func TestKernel(t *testing.T) {
	t.Parallel()
	g, err := New(Limits{Memory: 48 << 20, PIDs: 50})
	if errors.Is(err, define.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, p := range g.parts {
		dirs = append(dirs, p.dir)
	}
	// tail keeps all of its input's last line, which has no end.
	c := exec.CommandContext(t.Context(), "sh", "-c", "read go; tail /dev/zero >/dev/null; exit $?")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(c.Process.Pid); err != nil {
		t.Error(err)
	}
	in.Close()
	if err := c.Wait(); c.ProcessState.ExitCode() != 137 {
		t.Errorf("ended with %v, want 137", err)
	}
	if s := g.OutOfMemory(); !strings.HasPrefix(s, "out of memory: limit 48 MiB, peak 4") {
		t.Errorf("%q", s)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	for _, d := range dirs {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is left", d)
		}
	}
}

// TestSweep removes what a killed process has left, and nothing that is
// somebody's.
func TestSweep(t *testing.T) {
	t.Parallel()
	m := newMaker()
	top := t.TempDir()
	dead, live, foreign := filepath.Join(top, prefix+"dead"), filepath.Join(top, prefix+"live"), filepath.Join(top, "other")
	for _, d := range []string{dead, live, foreign} {
		if err := m.mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockDir(live, true)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	sweep(top)
	for d, want := range map[string]bool{dead: false, live: true, foreign: true} {
		if _, err := os.Stat(d); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", d, err == nil, want)
		}
	}
	// A group that a sweep takes away before it is locked is made again.
	tries := 0
	m.mkdir = func(path string) error {
		if tries++; tries == 1 {
			return errors.Join(os.Mkdir(path, 0o755), os.Remove(path))
		}
		return os.Mkdir(path, 0o755)
	}
	p, err := m.make(hierarchy{top: top, controllers: []string{"pids"}}, "/", nil)
	if err != nil || tries != 2 {
		t.Fatalf("%v after %d tries", err, tries)
	}
	p.lock.Close()
}

func FuzzParseHierarchies(f *testing.F) {
	f.Add("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/a\n")
	f.Add("33 31 0:30 /x /y rw - cgroup cgroup rw,cpu\n", "2:cpu:/x/z\n")
	f.Fuzz(func(t *testing.T, mounts, self string) {
		for _, h := range parseHierarchies(mounts, self) {
			if !strings.HasPrefix(h.own, "/") || strings.Contains(h.own+"/", "/../") {
				t.Errorf("own group %q", h.own)
			}
		}
	})
}
