package security

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestContexts: what a hostile directory, and the file of instructions in it,
// may try. CANARY stands for the canary's path.
func TestContexts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, c := range []struct {
		row   string
		files map[string]string
		args  []string
		fails string // part of the error; "" is no error; "*" is either
		never string // must not be in the output, "" is nothing
	}{
		{row: "12 copy from a stage through its links", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nRUN ln -s CANARY /d; ln -s / /r\nFROM localhost/busybox\nCOPY --from=a /d/file /r/CANARY/file /x/\n"}, fails: "*"},
		{row: "13 ignore file is a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY/file"}, fails: "*"},
		{row: "13 ignore file's link is followed", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\nRUN test -e /x/kept || echo FOLL''OWED\n", ".dockerignore": "-> CANARY/patterns", "kept": ""}, fails: "*", never: "FOLLOWED"},
		{row: "13 ignore file of the build file is a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\nRUN test -e /x/kept || echo FOLL''OWED\n", "Containerfile.dockerignore": "-> CANARY/patterns", "kept": ""}, fails: "*", never: "FOLLOWED"},
		{row: "13 ignore file is a directory", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY"}, fails: "*"},
		{row: "13 ignore file is a device", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> /dev/zero"}, fails: "*"},
		{row: "13 ignore file is a FIFO", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY/fifo"}, fails: "*"},
		{row: "17 zip is copied", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nADD x.zip /x/\nRUN cmp /x/x.zip /x/x.zip && test \"$(ls /x)\" = x.zip\n", "x.zip": "PK\x03\x04garbage"}},
		{row: "19 link with a slash", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY x/ /x/\nCOPY x /y\n", "x": "-> CANARY"}, fails: "*"},
		{row: "19 pattern through a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY x/fi* y*/fil? /x/\n", "x": "-> CANARY", "yy": "-> CANARY"}, fails: "*"},
		{row: "19 dot dot", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY ../canary /x/\n"}, fails: "*"},
		{row: "19 dot dot behind a name", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY a/../../canary/file /x/\n", "a/b": ""}, fails: "*"},
		{row: "20 patterns", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "[\n[a-\n\\\\\n!\n\x00\n" + strings.Repeat("a", 1<<20)}, fails: "*"},
		{row: "21 bind mount through a stage's link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nRUN ln -s / /root-link; ln -s CANARY /dir-link\nFROM localhost/busybox\nRUN --mount=type=bind,from=a,source=/root-link,target=/x,rw touch /x/BREAK; cat /x/CANARY/file; true\nRUN --mount=type=bind,from=a,source=/dir-link,target=/x,rw cat /x/file; echo broken >/x/file; true\n"}, fails: "*"},
		{row: "22 propagation", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=bind,bind-propagation=dev,target=/x true\n"}, fails: "propagation"},
		{row: "22 options behind propagation", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=cache,bind-propagation=suid,target=/x true\n"}, fails: "propagation"},
		{row: "26 mount point is exchanged for a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=tmpfs,target=/a/empty --mount=type=tmpfs,target=/a/dir rm -rf /a; mv /a /b; ln -s CANARY /a; true\nRUN ls /a/ || true\n"}, fails: "*"},
		{row: "27 bind mount of the context is written", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=bind,rw,target=/c touch /c/new && echo changed >/c/kept\nRUN --mount=type=bind,target=/c test ! -e /c/new && grep -q original /c/kept\n", "kept": "original\n"}},
		{row: "31 working directory is a descriptor", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nWORKDIR /proc/self/fd/7\nRUN ls ../../../CANARY\n"}, fails: "/proc"},
		{row: "31 working directory is the builder's", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s /proc/self/cwd /w\nWORKDIR /w\nRUN cat ./canary/file; cat ../../../../..CANARY/file; true\n"}, fails: "*"},
		{row: "37 mount points behind a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /d; ln -s CANARY/file /f\nRUN --mount=type=tmpfs,target=/d/new --mount=type=bind,target=/d/other --mount=type=cache,target=/d/dir/more ls /d/\nRUN --mount=type=secret,id=s,target=/d/secret --mount=type=tmpfs,target=/f true\n"}, args: []string{"--secret", "id=s,src=/dev/null"}, fails: "*"},
		{row: "40 working directory through a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /w\nUSER 1000\nWORKDIR /w/new\nRUN pwd; ls\n"}, fails: "*"},
		{row: "41 volumes", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /v\nVOLUME /../../CANARY /v\nRUN ls /v/ CANARY; cat /v/file; true\n"}, fails: "*"},
		{row: "42 links where distributions look", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN mkdir -p /etc/crypto-policies /run; ln -s CANARY /etc/crypto-policies/back-ends; ln -s CANARY /run/secrets; ln -s CANARY/file /etc/system-fips\nRUN cat /etc/crypto-policies/back-ends/file /run/secrets/file /etc/system-fips; true\n"}},
		{row: "43 accounts are links", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/file /etc/passwd; rm /etc/group; ln -s /dev/zero /etc/group\nCOPY --chown=somebody Containerfile /x\n"}, fails: "*"},
		{row: "43 the host's accounts are not used", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/passwd /etc/passwd\nCOPY --chown=somebody Containerfile /x\n"}, fails: "somebody"},
		{row: "43 the host's groups are not used", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/group; ln -s ../../../../../../../../../..CANARY/passwd /etc/group\nCOPY --chown=0:somebody Containerfile /x\n"}, fails: "somebody"},
		{row: "43 the host's accounts are not used for USER", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/passwd /etc/passwd\nUSER somebody\nRUN true\n"}, fails: "somebody"},
		{row: "43 accounts are a FIFO", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; mkfifo /etc/passwd\nUSER somebody\nRUN true\n"}, fails: "/etc/passwd"},
		{row: "45 users out of range", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 4294967296\nRUN id -u\n"}, fails: "4294967296"},
		{row: "45 a negative user", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER -1\nRUN id -u\n"}, fails: "-1"},
		{row: "45 numbers before names", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN echo 1:x:0:0::/:/bin/sh >>/etc/passwd\nUSER 1\nRUN test $(id -u) != 0 || echo IS''ROOT\n"}, fails: "*", never: "ISROOT"},
		{row: "45 what looks like a number", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 0x0\nRUN echo IS''ROOT\n"}, fails: "0x0", never: "ISROOT"},
		{row: "45 an exponent", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 1e3\nRUN echo IS''ROOT\n"}, fails: "1e3", never: "ISROOT"},
		{row: "45 other digits", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER \u0660\nRUN echo IS''ROOT\n"}, fails: "*", never: "ISROOT"},
		{row: "45 a group out of range", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 0:4294967296\nRUN echo IS''ROOT\n"}, fails: "4294967296", never: "ISROOT"},
		{row: "52 the builder's environment", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nENV CANARY_TOKEN\n"}, fails: "ENV"},
		{row: "54 labels and files of runtimes", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nLABEL run.oci.handler=krun run.oci.seccomp_bpf_data=AA== io.podman.annotations.seccomp=unconfined io.podman.annotations.label=disable\nCOPY krun.json /.krun_config.json\nFROM a\nRUN grep -q 'Seccomp:.*2' /proc/self/status && grep -q 'CapInh:.*0000000000000000' /proc/self/status\n", "krun.json": "{}"}},
		{row: "62 a frontend is not fetched", files: map[string]string{
			"Containerfile": "# syntax=stub.invalid/evil\nFROM localhost/busybox\nRUN true\n"}},
	} {
		t.Run(c.row, func(t *testing.T) {
			p := p.on(t)
			for name, text := range c.files {
				c.files[name] = strings.ReplaceAll(text, "CANARY", p.canary)
			}
			p.env = append(p.env, "CANARY_TOKEN="+p.token, "CANARY="+p.token)
			stdout, stderr, code := p.run("", append([]string{"build", p.context(c.files)}, c.args...)...)
			switch {
			case c.fails == "*":
			case c.fails == "" && code != 0:
				t.Errorf("exit status %d: %s", code, stderr)
			case c.fails != "" && (code == 0 || !strings.Contains(stderr, c.fails)):
				t.Errorf("exit status %d, want an error with %q: %s", code, c.fails, stderr)
			}
			if c.never != "" && strings.Contains(stdout+stderr, c.never) {
				t.Errorf("%q is in the output: %s", c.never, stderr)
			}
			if _, err := os.Lstat("/BREAK"); err == nil {
				t.Error("a file was made on the host")
			}
			p.check()
		})
	}
}

// TestTrojans: row 10, and 9, 11, 56, 61: programs of an image that are called
// as helpers are, in each directory of PATH, are never executed by the builder,
// in the image's root or in the host's.
func TestTrojans(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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
	packed := map[string][]byte{"gz": gzipped(t, plain)}
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

// TestRoots: rows 34 to 36, 39: images whose kernel mount points are links.
func TestRoots(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, name := range []string{"dev", "proc", "sys", "dev/null", "dev/console", "dev/pts", "dev/shm", "dev/ptmx", "etc", "etc/resolv.conf", "etc/hosts", "etc/mtab", "run", "tmp"} {
		targets := []string{p.canary, "/proc/sys/kernel/core_pattern", p.canary + "/file", "../../../../../../../../../.." + p.canary, "/proc/self/fd/3"}
		if !thorough() {
			targets = targets[:2]
		}
		for _, to := range targets {
			t.Run(name+" is a link to "+filepath.Base(to), func(t *testing.T) {
				p := p.on(t)
				members := []member{{kind: '5', name: "."}}
				if parent := filepath.Dir(name); parent != "." {
					members = append(members, member{kind: '5', name: parent})
				}
				members = append(members, member{kind: '2', name: name, link: to})
				layout := p.layout(archive(t, members))
				p.run("", "build", "--no-cache", p.context(map[string]string{
					"Containerfile": "FROM oci:" + layout + ":x\nCOPY --from=localhost/busybox /bin /bin\nRUN echo x >/dev/null; echo broken >/dev/ptmx; cat /dev/file /etc/file; true\nCOPY Containerfile /" + name + "/\n"}))
				p.check()
			})
		}
	}
}

// TestUmask: row 84: modes of layers and of the store do not follow the umask.
func TestUmask(t *testing.T) {
	p := newPlace(t) // not parallel: the mask is the process's
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nCOPY Containerfile /x/y/z\nRUN stat -c %a /x /x/y /x/y/z | tr '\\n' ' ' | grep -q '755 755 644'\n"})
	for _, mask := range []int{0, 0o77, 0o777} {
		old := unix.Umask(mask)
		_, stderr, code := p.run("", "build", "--no-cache", dir)
		unix.Umask(old)
		if code != 0 {
			t.Errorf("umask %o: %s", mask, stderr)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(p.work, "store/root/strata"), &st); err != nil || st.Mode&0o077 != 0 {
		t.Errorf("the state directory has mode %o (%v)", st.Mode, err)
	}
	p.check()
}
