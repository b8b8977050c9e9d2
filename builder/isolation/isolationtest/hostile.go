package isolationtest

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
)

var hostileCases = []testCase{
	{name: "kernel mount points as links", run: func(e *env) {
		// CVE-2019-19921, CVE-2025-52881, CVE-2026-41579: a root whose mount
		// points are links must not make us touch anything outside.
		for _, name := range []string{"proc", "sys", "dev"} {
			for _, relative := range []bool{false, true} {
				root, canary := NewRoot(e), newCanary(e)
				target := canary.dir
				if relative {
					target = strings.Repeat("../", 30) + canary.dir
				}
				relink(e, root, name, target)
				e.runIn(e.Context(), root, e.options("true"), nil)
				canary.check(e)
			}
		}
	}},
	{name: "mount points inside the root's links", run: func(e *env) {
		root, canary := NewRoot(e), newCanary(e)
		link(e, canary.dir, filepath.Join(root, "dev/pts"))
		link(e, canary.dir, filepath.Join(root, "dev/shm"))
		link(e, canary.dir+"/ptmx", filepath.Join(root, "dev/ptmx"))
		link(e, "/proc/sys/kernel/core_pattern", filepath.Join(root, "dev/null"))
		link(e, "/proc/sysrq-trigger", filepath.Join(root, "dev/console"))
		e.must(e.runIn(e.Context(), root, e.options("echo x >/dev/null"), nil))
		canary.check(e)
		if b, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || string(b) == "x\n" {
			e.Errorf("core_pattern %q: %v", b, err)
		}
	}},
	{name: "etc as a link", run: func(e *env) {
		root, canary := NewRoot(e), newCanary(e)
		relink(e, root, "etc", canary.dir)
		e.runIn(e.Context(), root, e.options("true"), nil)
		canary.check(e)
	}},
	{name: "files of etc as links", run: func(e *env) {
		for _, target := range []string{"/run/systemd/resolve/stub-resolv.conf", "CANARY/empty", "../CANARY/sub", "/proc/self/environ", "resolv.conf"} {
			root, canary := NewRoot(e), newCanary(e)
			file := filepath.Join(root, "etc/resolv.conf")
			if err := os.Remove(file); err != nil {
				e.Fatal(err)
			}
			link(e, strings.ReplaceAll(target, "CANARY", canary.dir), file)
			before := readLink(e, file)
			o := e.options("cat /etc/resolv.conf")
			o.DNS = []string{"192.0.2.9"}
			e.contains(e.must(e.runIn(e.Context(), root, o, nil)), "192.0.2.9")
			e.equal("the link afterwards", readLink(e, file), before)
			canary.check(e)
		}
	}},
	{name: "missing mount points", run: func(e *env) {
		root := NewRoot(e)
		for _, name := range []string{"proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd", "etc/group", "etc"} {
			if err := os.Remove(filepath.Join(root, name)); err != nil {
				e.Fatal(err)
			}
		}
		e.contains(e.must(e.runIn(e.Context(), root, e.options("cat /etc/hosts; ls /proc/self >/dev/null"), nil)), "localhost")
	}},
	{name: "working directory of a descriptor", run: func(e *env) {
		// CVE-2024-21626.
		for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/5", "/proc/self/fd/6", "/proc/self/fd/7",
			"/proc/self/fd/8", "/proc/self/fd/9", "/proc/self/cwd", "/proc/self/root", "/proc/1/root/etc", "/lnk"} {
			root := NewRoot(e)
			link(e, "/proc/self/fd/7", filepath.Join(root, "lnk"))
			token := e.TempDir()
			o := e.options("pwd; ls ../../../../../.." + token)
			o.Cwd = cwd
			if r := e.runIn(e.Context(), root, o, nil); r.err == nil {
				e.Errorf("%s: ran in %s", cwd, r.out)
			}
		}
	}},
	{name: "the runtime's binary is out of reach", run: func(e *env) {
		// CVE-2019-5736: the step executes what it believes is the runtime, and
		// then writes to it.
		self, err := os.Executable()
		if err != nil {
			e.Fatal(err)
		}
		before := fileID(e, self)
		o := e.options("")
		o.Args = []string{"/proc/self/exe"}
		e.runIn(e.Context(), NewRoot(e), o, nil)
		root := NewRoot(e)
		if err := os.Remove(filepath.Join(root, "bin/true")); err != nil {
			e.Fatal(err)
		}
		write(e, filepath.Join(root, "bin/true"), "#!/proc/self/exe\n", 0o755)
		o.Args = []string{"/bin/true"}
		e.runIn(e.Context(), root, o, nil)
		e.run(e.options("for p in /proc/[0-9]*; do (echo x >$p/exe) 2>/dev/null && echo wrote $p; done; true"))
		e.equal("binary", fileID(e, self), before)
	}},
	{name: "a mount point that is exchanged meanwhile", needs: []Feature{Volumes}, run: func(e *env) {
		// CVE-2021-30465, CVE-2024-45310: two steps share a volume; one flips a
		// directory with a link while the other mounts on it.
		cache, canary := e.TempDir(), newCanary(e)
		if err := os.Mkdir(filepath.Join(cache, "t"), 0o755); err != nil {
			e.Fatal(err)
		}
		link(e, canary.dir, filepath.Join(cache, "spare"))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(unix.AT_FDCWD, filepath.Join(cache, "t"), unix.AT_FDCWD, filepath.Join(cache, "spare"), unix.RENAME_EXCHANGE)
					time.Sleep(50 * time.Microsecond)
				}
			}
		}()
		root, inner := NewRoot(e), e.TempDir()
		own := filepath.Dir(cache) // the case's
		before := mountsOf(e, own)
		o := e.options("ls /c/t/token /c/t/sub 2>/dev/null")
		o.Volumes = []isolation.Volume{{Source: cache, Target: "/c"}, {Source: inner, Target: "/c/t"}}
		for range 40 {
			if r := e.runIn(e.Context(), root, o, nil); r.out != "" {
				e.Errorf("the step saw the host's %q", r.out)
			}
		}
		close(stop)
		<-done
		canary.check(e)
		e.equal("mounts of the host", mountsOf(e, own), before)
	}},
	{name: "masked whatever dev holds", needs: []Feature{KernelMounts}, run: func(e *env) {
		// CVE-2025-31133: masking must not use the root's own /dev/null.
		e.masked("rm -f /dev/null; ")
	}},
}
