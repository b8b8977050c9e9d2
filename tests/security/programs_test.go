package security

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// programAttacks are about what the builder executes and how it treats the
// host it is executed on.
func programAttacks() []attack {
	return []attack{
		{[]int{10, 9, 11, 61, 86}, "programs of the image", trojans},
		{[]int{11, 74}, "the program loads no libraries", static},
		{[]int{56, 53}, "programs that configurations of networks name", networkPlugins},
		{[]int{19, 69}, "the toolchain has the corrections", toolchain},
		{[]int{83}, "names of temporary files", temporaryNames},
		{[]int{84}, "modes and the umask", umasks},
		{[]int{84}, "other users", otherUsers},
		{[]int{85}, "few descriptors", fewDescriptors},
		{[]int{30, 28}, "a secret when the builder is killed", killedWithSecret},
	}
}

// trojans: programs of an image that are called as helpers are, in each
// directory of PATH, are never executed by the builder, in the image's root or
// in the host's.
func trojans(p *place) {
	t := p.t
	mark := filepath.Join(p.work, "executed")
	files := map[string]string{
		"Containerfile": `FROM localhost/busybox
RUN for n in xz unxz lzma pigz unpigz gzip gunzip bzip2 bunzip2 lbzip2 pbzip2 zstd unzstd tar git newuidmap nft iptables mount ldconfig; do \
  for d in /usr/local/bin /usr/bin /usr/sbin; do mkdir -p $d; printf '#!/bin/sh\necho x >>/marker; echo x >>` + mark + `\n' >$d/$n; chmod 755 $d/$n; done; done
RUN mkdir -p /lib /lib64 /usr/lib && for l in libnss_files.so.2 libnss_dns.so.2; do echo evil >/lib/$l; done; echo 'passwd: files evil' >/etc/nsswitch.conf
COPY --chown=nobody Containerfile /c
`,
	}
	plain := archive(t, []member{{kind: '0', name: "f", content: "unpacked"}})
	packed := map[string][]byte{"gz": p.gzipped(plain)}
	for _, c := range []struct{ end, program string }{{"xz", "xz"}, {"bz2", "bzip2"}, {"zst", "zstd"}} {
		cmd := exec.Command(c.program, "-c")
		cmd.Stdin = bytes.NewReader(plain)
		if out, err := cmd.Output(); err == nil {
			packed[c.end] = out
		} else {
			t.Logf("no archive is made with %s: %v", c.program, err)
		}
	}
	for end := range packed {
		files["Containerfile"] += "ADD a.tar." + end + " /" + end + "/\nRUN test -s /" + end + "/f\n"
	}
	files["Containerfile"] += "RUN test ! -e /marker\n"
	dir := p.context(files)
	for end, b := range packed {
		p.must(os.WriteFile(filepath.Join(dir, "a.tar."+end), b, 0o644))
	}
	// Programs of that name in relative and hostile entries of the builder's
	// own PATH (row 86) are not executed either.
	evil := filepath.Join(p.work, "evil")
	p.must(os.Mkdir(evil, 0o755))
	for _, n := range []string{"unpigz", "pigz", "xz", "zstd", "crun", "runc", "git", "newuidmap", "newgidmap"} {
		p.must(os.WriteFile(filepath.Join(evil, n), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755))
	}
	p.env = append(p.env, "PATH=evil:./evil::.:"+os.Getenv("PATH"))
	p.ok("", "build", "-t", "trojans", dir)
	// On what the image holds, by the commands that work without a build.
	out, _ := p.ok("", "from", "-q", "localhost/trojans")
	container := strings.TrimSpace(out)
	for end := range packed {
		p.ok("", "add", container, filepath.Join(dir, "a.tar."+end), "/again/"+end+"/")
	}
	p.ok("", "commit", "-q", container, "localhost/trojans2")
	p.ok("", "push", "-q", "localhost/trojans2", "docker-archive:"+filepath.Join(p.work, "out.tar"))
	p.ok("", "rm", container)
	for _, m := range []string{mark, "/marker"} {
		if _, err := os.Lstat(m); err == nil {
			t.Errorf("a program of the image, or of a relative entry of PATH, was executed: it made %s", m)
		}
	}
	p.check()
}

// static: nothing of an image, and no library of the host, is loaded.
func static(p *place) {
	f, err := elf.Open(p.binary)
	p.must(err)
	defer f.Close()
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP || prog.Type == elf.PT_DYNAMIC {
			p.t.Errorf("%s has a %v", p.binary, prog.Type)
		}
	}
}

// toolchain: os.Root and net/http have no weakness that is known of releases
// before this one.
func toolchain(p *place) {
	info, err := buildinfo.ReadFile(p.binary)
	p.must(err)
	var minor, patch int
	if _, err := fmt.Sscanf(info.GoVersion, "go1.%d.%d", &minor, &patch); err != nil || minor < 26 || minor == 26 && patch < 5 {
		p.t.Errorf("built with %s, want go1.26.5 or newer (%v)", info.GoVersion, err)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" && s.Value != "0" {
			p.t.Error("built with cgo")
		}
	}
}

// networkPlugins: configurations of CNI and netavark name programs; none is
// executed, whoever wrote them.
func networkPlugins(p *place) {
	mark := filepath.Join(p.work, "plugin")
	dir := filepath.Join(p.work, "plugins")
	p.must(os.MkdirAll(dir, 0o755))
	for _, n := range []string{"bridge", "evil", "netavark", "aardvark-dns", "slirp4netns", "pasta"} {
		p.must(os.WriteFile(filepath.Join(dir, n), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o755))
	}
	net := filepath.Join(p.work, "home/.config/cni/net.d")
	p.must(os.MkdirAll(net, 0o755))
	for i, kind := range []string{"bridge", "../plugins/evil", "../../../../../../../.." + dir + "/evil"} {
		p.must(os.WriteFile(filepath.Join(net, fmt.Sprintf("%d.conflist", i)), fmt.Appendf(nil, `{"cniVersion":"0.4.0","name":"podman","plugins":[{"type":%q}]}`, kind), 0o644))
	}
	conf := filepath.Join(p.work, "containers.conf")
	p.must(os.WriteFile(conf, fmt.Appendf(nil, "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [%q]\nnetwork_config_dir = %q\n[engine]\nhelper_binaries_dir = [%q]\nhooks_dir = [%q]\n", dir, net, dir, dir), 0o644))
	p.env = append(p.env, "CNI_PATH="+dir, "NETAVARK_PLUGIN_DIR="+dir, "CONTAINERS_CONF="+conf)
	dir = p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN true\n"})
	p.run("", "build", "--no-cache", dir)
	p.run("", "build", "--no-cache", "--network", "private", dir)
	if _, err := os.Lstat(mark); err == nil {
		p.t.Error("a plugin was executed")
	}
	p.check()
}

// temporaryNames: what a build makes in directories that others may write is
// not known before: links of those names lead nowhere.
func temporaryNames(p *place) {
	watched := []string{filepath.Join(p.work, "tmp"), filepath.Join(p.work, "run")}
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nADD x.tar.gz /x/\nRUN --mount=type=secret,id=s --mount=type=tmpfs,target=/t true\n"})
	p.must(os.WriteFile(filepath.Join(dir, "x.tar.gz"), p.gzipped(archive(p.t, []member{{kind: '0', name: "f"}})), 0o644))
	names := func() map[string]bool {
		in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		p.must(err)
		defer unix.Close(in)
		of := map[int32]string{}
		for _, w := range watched {
			n, err := unix.InotifyAddWatch(in, w, unix.IN_CREATE|unix.IN_MOVED_TO)
			p.must(err)
			of[int32(n)] = w
		}
		p.run("", "build", "--no-cache", "--secret", "id=s,src=/dev/null", dir)
		p.run("", "build", "--no-cache", "-o", "type=oci,dest="+filepath.Join(p.work, "o.tar"), dir)
		p.must(os.Remove(filepath.Join(p.work, "o.tar")))
		made := map[string]bool{}
		b := make([]byte, 64<<10)
		for {
			n, err := unix.Read(in, b)
			if err != nil || n <= 0 {
				return made
			}
			for off := 0; off+unix.SizeofInotifyEvent <= n; {
				length := int(binary.NativeEndian.Uint32(b[off+12:]))
				name := strings.TrimRight(string(b[off+unix.SizeofInotifyEvent:off+unix.SizeofInotifyEvent+length]), "\x00")
				made[filepath.Join(of[int32(binary.NativeEndian.Uint32(b[off:]))], name)] = true
				off += unix.SizeofInotifyEvent + length
			}
		}
	}
	planted := 0
	for path := range names() {
		// What stays from one command to the next is not a temporary file.
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			p.must(os.Symlink(filepath.Join(p.canary, []string{"dir", "file", "fifo"}[planted%3]), path))
			defer os.Remove(path)
			planted++
		}
	}
	for path := range names() {
		if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			p.t.Errorf("%s was expected by its name", path)
		}
	}
	if now := p.snapshot(); now != p.before {
		p.t.Errorf("the canary changed, from\n%sto\n%s", p.before, now)
	}
}

// umasks: modes of layers and of the store do not follow the umask.
func umasks(p *place) {
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nCOPY Containerfile /x/y/z\nRUN stat -c %a /x /x/y /x/y/z | tr '\\n' ' ' | grep -q '755 755 644'\n"})
	for _, mask := range []string{"000", "077", "777"} {
		cmd := exec.Command("sh", "-c", "umask "+mask+"; exec \"$@\"", "sh", p.binary, "build", "--no-cache", dir)
		cmd.Env, cmd.Dir = p.env, p.work
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Errorf("umask %s: %v: %s", mask, err, out)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(p.work, "store/root/strata"), &st); err != nil || st.Mode&0o077 != 0 {
		p.t.Errorf("the state directory has mode %o (%v)", st.Mode, err)
	}
	p.check()
}

// otherUsers: nobody else reaches what is in the store, least of all a setuid
// program of a layer.
func otherUsers(p *place) {
	if os.Geteuid() != 0 {
		p.t.Skip("becomes another user: needs root")
	}
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN cp /bin/busybox /evil && chmod 4755 /evil\nCOPY --chmod=4755 Containerfile /evil2\n"})
	p.must(os.Chmod(p.work, 0o755))
	cmd := exec.Command("sh", "-c", "umask 000; exec \"$@\"", "sh", p.binary, "build", "--no-cache", "-t", "localhost/setuid", dir)
	cmd.Env, cmd.Dir = p.env, p.work
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	found := 0
	p.must(filepath.WalkDir(filepath.Join(p.work, "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasPrefix(d.Name(), "evil") {
			return err
		}
		found++
		look := exec.Command(p.toolOrSkip("stat"), path)
		look.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := look.CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			p.t.Errorf("another user reaches %s: %s", path, out)
		}
		return nil
	}))
	if found == 0 {
		p.t.Error("the programs are not found in the store")
	}
	p.check()
}

func (p *place) toolOrSkip(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		p.t.Skip(err)
	}
	return path
}

// fewDescriptors: with any limit on open files a build is right or fails with
// an error.
func fewDescriptors(p *place) {
	t := p.t
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nCOPY Containerfile /x\nRUN test -s /x\n"})
	limits := []int{8, 16, 20, 24, 32, 64}
	if thorough() {
		limits = nil
		for n := 6; n <= 128; n++ {
			limits = append(limits, n)
		}
	}
	for _, n := range limits {
		cmd := exec.Command("sh", "-c", fmt.Sprintf("ulimit -n %d; exec \"$@\"", n), "sh", p.binary, "build", "--no-cache", "-q", "-t", "few", dir)
		cmd.Env, cmd.Dir = p.env, p.work
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if text := "\n" + errs.String(); err != nil && (strings.Contains(text, "goroutine ") || strings.Count(text, "\nError: ") != 1) {
			t.Errorf("%d descriptors: %v: want one line of an error: %s", n, err, firstLines(errs.String()))
		}
		if err == nil {
			if got, _ := p.ok("", "build", "-q", p.context(map[string]string{"Containerfile": "FROM localhost/few\nRUN test -s /x\n"})); got == "" {
				t.Errorf("%d descriptors: no image", n)
			}
		}
	}
	p.ok("", "build", "-q", "--no-cache", dir)
	p.check()
}

func firstLines(s string) string {
	lines := strings.SplitN(s, "\n", 6)
	return strings.Join(lines[:min(5, len(lines))], "\n")
}

// killedWithSecret: a builder that is killed while a step sees a secret leaves
// it nowhere. newPlace's oracle searches for the token when the row ends.
func killedWithSecret(p *place) {
	p.env = append(p.env, "SECRET="+p.token)
	file := filepath.Join(p.work, "secret")
	p.must(os.WriteFile(file, []byte(p.token), 0o600))
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN --mount=type=secret,id=s --mount=type=secret,id=f,env=F --mount=type=secret,id=f,target=/f " +
		"grep -q . /run/secrets/s /f && test -n \"$F\" && echo REA''DY && sleep 60\n"})
	cmd := exec.Command(p.binary, "build", "--no-cache", "--progress", "plain", "--secret", "id=s,env=SECRET", "--secret", "id=f,src="+file, dir)
	cmd.Env, cmd.Dir = p.env, p.work
	errs, err := cmd.StderrPipe()
	p.must(err)
	p.must(cmd.Start())
	stop := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer stop.Stop()
	var said []byte
	for b := make([]byte, 4096); !bytes.Contains(said, []byte("READY")); {
		n, err := errs.Read(b)
		if said = append(said, b[:n]...); err != nil {
			p.t.Errorf("the step did not start: %s", said)
			break
		}
	}
	p.must(cmd.Process.Kill())
	_ = cmd.Wait()
	p.nowhere()
	p.ok("", "build", "--no-cache", p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN test ! -e /f && test ! -e /run/secrets/s\n"}))
	p.nowhere()
	p.check()
}
