package isolationtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/copier"
)

func init() {
	probes["owners-ids"], probes["owners-race"], probes["owners-making"] = probeIDs, probeOwnerRace, probeMakingRace
}

// ownerCases are about owners that a user namespace of one id cannot give.
var ownerCases = []testCase{
	{name: "owners are remembered", run: func(e *env) {
		root, r := e.remembering("cd /work; mkdir d; touch d/f; ln -s f d/l; chown -R 5:6 .; chown -h 7:8 d/l; chown 9 d; stat -c %u:%g d d/f d/l; "+
			"chmod 6755 d/f; chown 0:0 d/f; stat -c %a:%u:%g d/f; cd d; chown :4 ./f; chown 3 ../d/f; stat -c %u:%g /work/d/../d/f", nil)
		e.equal("what the step sees", e.must(r), "9:6\n5:6\n7:8\n755:0:0\n3:4")
		e.equal("directory", ownerOf(e, filepath.Join(root, "work/d")), "9:6")
		e.equal("file", ownerOf(e, filepath.Join(root, "work/d/f")), "3:4")
		log, err := copier.OpenOwnerLog(OpenRoot(e, root))
		if err != nil {
			e.Fatal(err)
		}
		defer log.Close()
		fd, err := unix.Open(filepath.Join(root, "work/d/l"), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			e.Fatal(err)
		}
		defer unix.Close(fd)
		key, err := copier.KeyOf(fd)
		if err != nil {
			e.Fatal(err)
		}
		if owner, ok := log.Owner(key); !ok || owner != (copier.Owner{UID: 7, GID: 8}) {
			e.Errorf("link: %v, %t", owner, ok)
		}
	}},
	{name: "owners of the host's files are the kernel's", run: func(e *env) {
		canary := newCanary(e)
		_, r := e.remembering("for f in /v/token /v/sub /v /dev/null /proc/self /etc/hosts; do chown 5:6 $f 2>/dev/null && echo $f; done; "+
			"ln -s /v/token /work/l; chown 5 /work/l 2>/dev/null && echo link; cd /v; chown 5 ../v/token 2>/dev/null && echo relative; "+
			"chown 5 /proc/self/fd/1 2>/dev/null && echo output; stat -c %u /v/token", &isolation.Volume{Source: canary.dir, Target: "/v"})
		e.equal("what could be changed", e.must(r), "0")
		canary.check(e)
		canary.unmarked(e)
	}},
	{name: "owners without being asked", run: func(e *env) {
		e.onlySingle()
		if got := e.code(e.run(e.options("touch /work/f; chown 5 /work/f 2>/dev/null"))); got == 0 {
			e.Error("chown succeeded, and nobody remembers")
		}
	}},
	{name: "owners need the capability", run: func(e *env) {
		_, r := e.rememberingWith("touch /work/f; chown 5 /work/f 2>/dev/null || echo denied; stat -c %u /work/f", nil,
			func(o *isolation.Options) { o.CapDrop = []string{"CHOWN"} })
		e.equal("result", e.must(r), "denied\n0")
	}},
	{name: "owners without a seccomp profile", run: func(e *env) {
		for _, nnp := range []bool{false, true} {
			_, r := e.rememberingWith("touch /work/f; chown 5 /work/f; stat -c %u /work/f", nil,
				func(o *isolation.Options) { o.SeccompUnconfined, o.NoNewPrivileges = !nnp, nnp })
			e.equal("result", e.must(r), "5")
		}
	}},
	{name: "ids of a process that changes them", run: func(e *env) {
		_, r := e.rememberingProbe("owners-ids", nil, nil)
		e.equal("ids", e.must(r), "0 0 0 0\nsetgroups ok\nsetgid ok\nsetuid ok\n1000 1000 1001 1001\n"+
			"setuid back operation not permitted\nsetgroups again operation not permitted\nchild 1000\nthread 1000")
	}},
	{name: "another user is told so", run: func(e *env) {
		root, r := e.rememberingWith("id -u; id -G; mkdir /work/d && touch /work/d/f && ln -s f /work/d/l; stat -c %u:%g /work/d/f /work/d/l; "+
			"touch /f 2>/dev/null || echo refused; chown 6 /work/d 2>/dev/null || echo kept; grep CapEff /proc/self/status | tr -d '\\t'", nil,
			func(o *isolation.Options) { o.UID, o.GID, o.Groups = 5, 6, []uint32{6, 7} })
		e.equal("what the step sees", e.must(r), "5\n6 7\n5:6\n5:6\nrefused\nkept\nCapEff:0000000000000000")
		e.equal("directory", ownerOf(e, filepath.Join(root, "work/d")), "5:6")
		e.equal("file", ownerOf(e, filepath.Join(root, "work/d/f")), "5:6")
	}},
	{name: "files are made where names change", run: func(e *env) {
		// Directories are exchanged for the host's while files are made in them:
		// only files of the root may get owners.
		canary := newCanary(e)
		_, r := e.rememberingProbe("owners-making", &isolation.Volume{Source: canary.dir, Target: "/v"}, []string{"TRIES=" + strconv.Itoa(raceTries(e))})
		e.must(r)
		canary.unmarked(e)
		if !strings.Contains(r.out, "both") {
			e.Logf("the exchange was never met: %s", r.out)
		}
	}},
	{name: "owners and names that change", run: func(e *env) {
		// What a name leads to is exchanged for the host's while it is given
		// away: only files of the root may get owners.
		canary := newCanary(e)
		root, r := e.rememberingProbe("owners-race", &isolation.Volume{Source: canary.dir, Target: "/v"}, []string{"TRIES=" + strconv.Itoa(raceTries(e))})
		e.must(r)
		canary.check(e)
		canary.unmarked(e)
		if got := ownerOf(e, filepath.Join(root, "work/a/token")); got != "" && got != "5:6" {
			e.Errorf("the step's own file: %q", got)
		}
		if !strings.Contains(r.out, "both") {
			e.Logf("the exchange was never met: %s", r.out)
		}
	}},
}

// raceTries is how often a race is tried; STRATA_SECURITY_TRIES says so for
// long runs.
func raceTries(e *env) int {
	n, err := strconv.Atoi(os.Getenv("STRATA_SECURITY_TRIES"))
	if err != nil || n < 1 {
		return 300
	}
	return n
}

func (e *env) onlySingle() {
	e.Helper()
	if !e.s.SingleID || e.d.Name() != "embedded" {
		e.Skip("for the embedded driver with one id")
	}
}

// remembering runs a script in a fresh root, which is its own upper.
func (e *env) remembering(script string, v *isolation.Volume) (root string, r result) {
	e.Helper()
	return e.rememberingWith(script, v, nil)
}

func (e *env) rememberingWith(script string, v *isolation.Volume, configure func(*isolation.Options)) (root string, r result) {
	e.Helper()
	e.onlySingle()
	root = NewRoot(e)
	o := e.options(script)
	if configure != nil {
		configure(&o)
	}
	return root, e.remember(root, o, v)
}

// rememberingProbe is remembering for a probe.
func (e *env) rememberingProbe(name string, v *isolation.Volume, env []string) (root string, r result) {
	e.Helper()
	e.onlySingle()
	root = NewRoot(e)
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		e.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, probePath), b, 0o755); err != nil {
		e.Fatal(err)
	}
	o := e.options("")
	o.Args, o.Env = []string{probePath, name}, append(o.Env, env...)
	return root, e.remember(root, o, v)
}

func (e *env) remember(root string, o isolation.Options, v *isolation.Volume) result {
	e.Helper()
	var probe [8]byte
	if _, err := unix.Getxattr(root, copier.OwnerXattr, probe[:]); err == unix.ENOTSUP {
		e.Skip("the temporary directory has no attributes of users")
	}
	if v != nil {
		o.Volumes = []isolation.Volume{*v}
	}
	told := o.Tell()
	spec, err := isolation.NewSpec(o)
	if err != nil {
		e.Fatal(err)
	}
	if spec.Told = told; told.UID != 0 {
		if err := os.Chmod(filepath.Join(root, "work"), 0o777); err != nil {
			e.Fatal(err)
		}
	}
	upper := OpenRoot(e, root)
	e.owners = &isolation.Owners{Upper: upper, Remembers: true, Refused: func(err error) { e.Errorf("refused: %v", err) }}
	defer func() { e.owners = nil }()
	return e.runSpec(e.Context(), OpenRoot(e, root), spec, nil)
}

// ownerOf is the remembered owner of a file or directory, or "".
func ownerOf(e *env, name string) string {
	e.Helper()
	var b [64]byte
	n, err := unix.Lgetxattr(name, copier.OwnerXattr, b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// unmarked fails the test when anything in the canary has an owner noted.
func (c *canary) unmarked(e *env) {
	e.Helper()
	_ = filepath.WalkDir(c.dir, func(p string, _ os.DirEntry, _ error) error {
		if got := ownerOf(e, p); got != "" {
			e.Errorf("%s: the owner %s was noted on a file of the host's", p, got)
		}
		return nil
	})
}

// probeIDs changes the process's ids.
func probeIDs() {
	show := func() { fmt.Println(unix.Getuid(), unix.Geteuid(), unix.Getgid(), unix.Getegid()) }
	say := func(what string, e error) {
		if e == nil {
			fmt.Println(what, "ok")
		} else {
			fmt.Println(what, e)
		}
	}
	show()
	say("setgroups", unix.Setgroups([]int{1001}))
	say("setgid", unix.Setgid(1001))
	say("setuid", unix.Setuid(1000))
	show()
	say("setuid back", unix.Setuid(0))
	say("setgroups again", unix.Setgroups([]int{0}))
	r, w, _ := os.Pipe()
	p, err := os.StartProcess("/bin/id", []string{"id", "-u"}, &os.ProcAttr{Files: []*os.File{nil, w, os.Stderr}})
	w.Close()
	if err == nil {
		_, err = p.Wait()
	}
	b := make([]byte, 64)
	n, _ := r.Read(b)
	fmt.Print("child ", string(b[:n]))
	done := make(chan int)
	go func() { done <- unix.Getuid() }()
	fmt.Println("thread", <-done)
	if err != nil {
		fmt.Println(err)
	}
}

// probeOwnerRace gives /work/x/token away while /work/x is exchanged: for a
// directory of the root, a link into the volume, and a link back.
func probeOwnerRace() {
	tries, _ := strconv.Atoi(os.Getenv("TRIES"))
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	must(os.MkdirAll("/work/a", 0o755))
	must(os.WriteFile("/work/a/token", []byte("own"), 0o644))
	must(os.Symlink("/v", "/work/b"))
	must(os.Symlink("/v/token", "/work/c"))
	must(os.WriteFile("/work/d", nil, 0o644))
	var stop atomic.Bool
	for _, pair := range [][2]string{{"/work/a", "/work/b"}, {"/work/c", "/work/d"}} {
		go func() {
			for !stop.Load() {
				_ = unix.Renameat2(unix.AT_FDCWD, pair[0], unix.AT_FDCWD, pair[1], unix.RENAME_EXCHANGE)
			}
		}()
	}
	// The path's own memory changes, too.
	paths := []string{"/work/a/token\x00", "/work/b/token\x00", "/work/c\x00/\x00\x00\x00\x00\x00\x00", "/v/token\x00\x00\x00\x00\x00\x00"}
	var shared [64]byte
	go func() {
		for i := 0; !stop.Load(); i++ {
			copy(shared[:], paths[i%len(paths)])
		}
	}()
	copy(shared[:], paths[0])
	dir, err := unix.Open("/work", unix.O_PATH|unix.O_DIRECTORY, 0)
	must(err)
	gone, kept := 0, 0
	count := func(e unix.Errno) {
		if e == 0 {
			kept++
		} else {
			gone++
		}
	}
	relative := append([]byte("a/token"), 0)
	for range tries {
		_, _, e := unix.Syscall6(unix.SYS_FCHOWNAT, uintptr(dir), uintptr(unsafe.Pointer(&relative[0])), 5, 6, 0, 0)
		count(e)
		_, _, e = unix.Syscall6(unix.SYS_FCHOWNAT, uintptr(dir), uintptr(unsafe.Pointer(&shared[0])), 5, 6, 0, 0)
		count(e)
		count(errnoOf(unix.Chown("/work/c", 5, 6)))
		fd, err := unix.Open("/work/c", unix.O_RDONLY, 0)
		if err == nil {
			count(errnoOf(unix.Fchown(fd, 5, 6)))
			unix.Close(fd)
		}
	}
	stop.Store(true)
	if gone > 0 && kept > 0 {
		fmt.Println("both", gone, kept)
	}
}

// probeMakingRace makes files, as another user, in /work/x, which is exchanged
// for a link into the volume.
func probeMakingRace() {
	tries, _ := strconv.Atoi(os.Getenv("TRIES"))
	for _, err := range []error{os.MkdirAll("/work/a", 0o777), os.Chmod("/work/a", 0o777), os.Symlink("/v", "/work/b"), unix.Setuid(5)} {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, "/work/a", unix.AT_FDCWD, "/work/b", unix.RENAME_EXCHANGE)
		}
	}()
	own, others := 0, 0
	for i := range tries {
		name := "/work/a/f" + strconv.Itoa(i)
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		if err == nil {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Uid == 5 {
				own++
			} else {
				others++
			}
			unix.Close(fd)
		}
		_ = unix.Mkdir(name+"d", 0o755)
		_ = unix.Symlink("x", name+"l")
		_ = unix.Rename(name+"d", name+"e")
		_ = unix.Link(name, name+"h")
	}
	stop.Store(true)
	<-done
	if own > 0 && others > 0 {
		fmt.Println("both", own, others)
	}
}

func errnoOf(err error) unix.Errno {
	e, _ := err.(unix.Errno)
	return e
}
