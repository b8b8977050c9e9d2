package security

import (
	"os"
	"strconv"
	"strings"
)

// build is an attack by a directory to build from. CANARY stands for the
// canary's path in it.
type build struct {
	rows, name string
	file       string            // the Containerfile, where it is not among files
	files      map[string]string // of the context
	args       []string
	fails      string // part of the error; "" is no error; "*" is either
	never      string // must not be in the output, "" is nothing
}

// buildAttacks makes attacks of builds.
func buildAttacks(builds []build) (all []attack) {
	for _, b := range builds {
		all = append(all, attack{numbers(b.rows), b.name, b.run})
	}
	return all
}

// numbers reads "12,13".
func numbers(s string) (n []int) {
	for f := range strings.SplitSeq(s, ",") {
		i, err := strconv.Atoi(f)
		if err != nil {
			panic(err)
		}
		n = append(n, i)
	}
	return n
}

func (b build) run(p *place) {
	t := p.t
	files := map[string]string{}
	for name, text := range b.files {
		files[name] = strings.ReplaceAll(text, "CANARY", p.canary)
	}
	if b.file != "" {
		files["Containerfile"] = strings.ReplaceAll(b.file, "CANARY", p.canary)
	}
	p.env = append(p.env, "CANARY_TOKEN="+p.token, "CANARY="+p.token)
	stdout, stderr, code := p.run("", append([]string{"build", "--no-cache", p.context(files)}, b.args...)...)
	switch {
	case b.fails == "*":
	case b.fails == "" && code != 0:
		t.Errorf("exit status %d: %s", code, stderr)
	case b.fails != "" && (code == 0 || !strings.Contains(stderr, b.fails)):
		t.Errorf("exit status %d, want an error with %q: %s", code, b.fails, stderr)
	}
	if b.never != "" && strings.Contains(stdout+stderr, b.never) {
		t.Errorf("%q is in the output: %s", b.never, stderr)
	}
	if _, err := os.Lstat("/BREAK"); err == nil {
		t.Error("a file was made on the host")
	}
	p.check()
}

// contextAttacks: what a hostile directory, and the file of instructions in
// it, may try.
func contextAttacks() []attack {
	return buildAttacks([]build{
		{rows: "12", name: "copy from a stage through its links", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nRUN ln -s CANARY /d; ln -s / /r\nFROM localhost/busybox\nCOPY --from=a /d/file /r/CANARY/file /x/\n"}, fails: "*"},
		{rows: "13", name: "ignore file is a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY/file"}, fails: "*"},
		{rows: "13", name: "ignore file's link is followed", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\nRUN test -e /x/kept || echo FOLL''OWED\n", ".dockerignore": "-> CANARY/patterns", "kept": ""}, fails: "*", never: "FOLLOWED"},
		{rows: "13", name: "ignore file of the build file is a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\nRUN test -e /x/kept || echo FOLL''OWED\n", "Containerfile.dockerignore": "-> CANARY/patterns", "kept": ""}, fails: "*", never: "FOLLOWED"},
		{rows: "13", name: "ignore file is a directory", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY"}, fails: "*"},
		{rows: "13", name: "ignore file is a device", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> /dev/zero"}, fails: "*"},
		{rows: "13", name: "ignore file is a FIFO", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "-> CANARY/fifo"}, fails: "*"},
		{rows: "17", name: "zip is copied", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nADD x.zip /x/\nRUN --mount=target=/c cmp /c/x.zip /x/x.zip && test \"$(ls /x)\" = x.zip\n", "x.zip": "PK\x03\x04garbage"}},
		{rows: "19", name: "link with a slash", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY x/ /x/\nCOPY x /y\n", "x": "-> CANARY"}, fails: "*"},
		{rows: "19", name: "pattern through a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY x/fi* y*/fil? /x/\n", "x": "-> CANARY", "yy": "-> CANARY"}, fails: "*"},
		{rows: "19", name: "dot dot", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY ../canary /x/\n"}, fails: "*"},
		{rows: "19", name: "dot dot behind a name", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY a/../../canary/file /x/\n", "a/b": ""}, fails: "*"},
		{rows: "20", name: "patterns", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "[\n[a-\n\\\\\n!\n\x00\n" + strings.Repeat("a", 1<<20)}, fails: "*"},
		{rows: "21", name: "bind mount through a stage's link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nRUN ln -s / /root-link; ln -s CANARY /dir-link\nFROM localhost/busybox\nRUN --mount=type=bind,from=a,source=/root-link,target=/x,rw touch /x/BREAK; cat /x/CANARY/file; true\nRUN --mount=type=bind,from=a,source=/dir-link,target=/x,rw cat /x/file; echo broken >/x/file; true\n"}, fails: "*"},
		{rows: "22", name: "propagation", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=bind,bind-propagation=dev,target=/x true\n"}, fails: "propagation"},
		{rows: "22", name: "options behind propagation", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=cache,bind-propagation=suid,target=/x true\n"}, fails: "propagation"},
		{rows: "26", name: "mount point is exchanged for a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=tmpfs,target=/a/empty --mount=type=tmpfs,target=/a/dir rm -rf /a; mv /a /b; ln -s CANARY /a; true\nRUN ls /a/ || true\n"}, fails: "*"},
		{rows: "27", name: "bind mount of the context is written", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=type=bind,rw,target=/c touch /c/new && echo changed >/c/kept\nRUN --mount=type=bind,target=/c test ! -e /c/new && grep -q original /c/kept\n", "kept": "original\n"}},
		{rows: "31", name: "working directory is a descriptor", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nWORKDIR /proc/self/fd/7\nRUN ls ../../../CANARY\n"}, fails: "/proc"},
		{rows: "31", name: "working directory is the builder's", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s /proc/self/cwd /w\nWORKDIR /w\nRUN cat ./canary/file; cat ../../../../..CANARY/file; true\n"}, fails: "*"},
		{rows: "37", name: "mount points behind a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /d; ln -s CANARY/file /f\nRUN --mount=type=tmpfs,target=/d/new --mount=type=bind,target=/d/other --mount=type=cache,target=/d/dir/more ls /d/\nRUN --mount=type=secret,id=s,target=/d/secret --mount=type=tmpfs,target=/f true\n"}, args: []string{"--secret", "id=s,src=/dev/null"}, fails: "*"},
		{rows: "40", name: "working directory through a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /w\nUSER 1000\nWORKDIR /w/new\nRUN pwd; ls\n"}, fails: "*"},
		{rows: "41", name: "volumes", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN ln -s CANARY /v\nVOLUME /../../CANARY /v\nRUN ls /v/ CANARY; cat /v/file; true\n"}, fails: "*"},
		{rows: "42", name: "links where distributions look", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN mkdir -p /etc/crypto-policies /run; ln -s CANARY /etc/crypto-policies/back-ends; ln -s CANARY /run/secrets; ln -s CANARY/file /etc/system-fips\nRUN cat /etc/crypto-policies/back-ends/file /run/secrets/file /etc/system-fips; true\n"}},
		{rows: "43", name: "accounts are links", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/file /etc/passwd; rm /etc/group; ln -s /dev/zero /etc/group\nCOPY --chown=somebody Containerfile /x\n"}, fails: "*"},
		{rows: "43", name: "the host's accounts are not used", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/passwd /etc/passwd\nCOPY --chown=somebody Containerfile /x\n"}, fails: "somebody"},
		{rows: "43", name: "the host's groups are not used", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/group; ln -s ../../../../../../../../../..CANARY/passwd /etc/group\nCOPY --chown=0:somebody Containerfile /x\n"}, fails: "somebody"},
		{rows: "43", name: "the host's accounts are not used for USER", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s CANARY/passwd /etc/passwd\nUSER somebody\nRUN true\n"}, fails: "somebody"},
		{rows: "43", name: "accounts are a FIFO", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN rm /etc/passwd; mkfifo /etc/passwd\nUSER somebody\nRUN true\n"}, fails: "/etc/passwd"},
		{rows: "45", name: "users out of range", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 4294967296\nRUN id -u\n"}, fails: "4294967296"},
		{rows: "45", name: "a negative user", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER -1\nRUN id -u\n"}, fails: "-1"},
		{rows: "45", name: "numbers before names", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN echo 1:x:0:0::/:/bin/sh >>/etc/passwd\nUSER 1\nRUN test $(id -u) != 0 || echo IS''ROOT\n"}, fails: "*", never: "ISROOT"},
		{rows: "45", name: "what looks like a number", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 0x0\nRUN echo IS''ROOT\n"}, fails: "0x0", never: "ISROOT"},
		{rows: "45", name: "an exponent", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 1e3\nRUN echo IS''ROOT\n"}, fails: "1e3", never: "ISROOT"},
		{rows: "45", name: "other digits", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER \u0660\nRUN echo IS''ROOT\n"}, fails: "*", never: "ISROOT"},
		{rows: "45", name: "a group out of range", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nUSER 0:4294967296\nRUN echo IS''ROOT\n"}, fails: "4294967296", never: "ISROOT"},
		{rows: "52", name: "the builder's environment", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nENV CANARY_TOKEN\n"}, fails: "ENV"},
		{rows: "54", name: "labels and files of runtimes", files: map[string]string{
			"Containerfile": "FROM localhost/busybox AS a\nLABEL run.oci.handler=krun run.oci.seccomp_bpf_data=AA== io.podman.annotations.seccomp=unconfined io.podman.annotations.label=disable\nCOPY krun.json /.krun_config.json\nFROM a\nRUN grep -q 'Seccomp:.*2' /proc/self/status && grep -q 'CapInh:.*0000000000000000' /proc/self/status\n", "krun.json": "{}"}},
		{rows: "62", name: "a frontend is not fetched", files: map[string]string{
			"Containerfile": "# syntax=stub.invalid/evil\nFROM localhost/busybox\nRUN true\n"}},
		{rows: "19", name: "source of a bind mount with a slash", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nRUN --mount=source=x/,target=/x ls /x; cat /x/file; true\n", "x": "-> CANARY"}, fails: "*"},
		{rows: "19", name: "modes through a link", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY --chmod=777 x/ y/ /x/\nCOPY --chown=12:12 x y/l /y/\n", "x": "-> CANARY", "y/l": "-> CANARY/file"}, fails: "*"},
		{rows: "20", name: "a pattern that is none", files: map[string]string{
			"Containerfile": "FROM localhost/busybox\nCOPY . /x\n", ".dockerignore": "a\nb\n[a-\n"}, fails: ":3"},
		{rows: "23", name: "names of a cache that go up", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=../../../../../../../../../../../..CANARY,target=/x cat /x/file; touch /x/new; echo broken >/x/file; true\n" +
			"RUN --mount=type=cache,id=CANARY,target=/x cat /x/file; touch /x/new; true\nRUN --mount=type=cache,target=/../..CANARY cat CANARY/file; touch CANARY/new; true\n", fails: "*"},
		{rows: "23,25", name: "a directory of a cache that goes up", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=a,source=../../../../../../../../../../../..CANARY,target=/x cat /x/file; touch /x/new; true\n", fails: "*"},
		{rows: "23,25", name: "a directory of a cache by its full name", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=a,source=CANARY,target=/x cat /x/file; touch /x/new; true\n", fails: "*"},
		{rows: "23,25", name: "a directory of a cache below another and up", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=a,target=/x mkdir -p /x/a\nRUN --mount=type=cache,id=a,source=a/../../../../../../../../../../../../..CANARY,target=/x cat /x/file; touch /x/new; true\n", fails: "*"},
		{rows: "25", name: "a link that an earlier build left in a cache", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=l,target=/x ln -sfn CANARY /x/l; ln -sfn / /x/r\n" +
			"RUN --mount=type=cache,id=l,source=l,target=/y cat /y/file; touch /y/new; true\n", fails: "*"},
		{rows: "25", name: "and one to the root", file: "FROM localhost/busybox\nRUN --mount=type=cache,id=l,target=/x ln -sfn / /x/r\n" +
			"RUN --mount=type=cache,id=l,source=r/CANARY,target=/y cat /y/file; touch /y/new; true\n", fails: "*"},
		{rows: "36", name: "mounts over the kernel's", file: "FROM localhost/busybox\nRUN ln -s /proc /p; ln -s /proc/self/attr /q\nRUN --mount=type=tmpfs,target=/p/self/attr true\n", fails: "*"},
		{rows: "36", name: "a mount over proc", file: "FROM localhost/busybox\nRUN --mount=type=bind,target=/proc test -e /proc/self/status || echo FA''KED\n", fails: "*"},
		{rows: "43", name: "accounts are links in a circle", file: "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s passwd /etc/passwd\nUSER somebody\nRUN true\n", fails: "/etc/passwd"},
		{rows: "43", name: "accounts are a directory", file: "FROM localhost/busybox\nRUN rm /etc/passwd; mkdir /etc/passwd\nUSER somebody\nRUN true\n", fails: "/etc/passwd"},
		{rows: "43", name: "accounts are the builder's own input", file: "FROM localhost/busybox\nRUN rm /etc/passwd; ln -s /proc/self/fd/0 /etc/passwd\nUSER somebody\nRUN true\n", fails: "somebody"},
		{rows: "44", name: "groups without end", file: "FROM localhost/busybox\nRUN truncate -s 64M /etc/group\nUSER 0:somebody\nRUN true\n", fails: "/etc/group"},
		{rows: "44", name: "accounts in one long line", file: "FROM localhost/busybox\nRUN head -c 20000000 /dev/zero | tr '\\0' a >/etc/passwd\nCOPY --chown=somebody Containerfile /x\n", fails: "/etc/passwd"},
		{rows: "45", name: "a number and a space", file: "FROM localhost/busybox\nUSER \" 0\"\nRUN echo IS''ROOT\n", fails: "*", never: "ISROOT"},
		{rows: "45", name: "a user of more bits than there are", file: "FROM localhost/busybox\nUSER 65536:2147483648\nRUN test $(id -u) = 65536 && test $(id -g) != 0 || echo IS''ROOT\n", fails: "*", never: "ISROOT"},
		{rows: "48", name: "a mode of security in capitals", file: "FROM localhost/busybox\nRUN --security=INSECURE true\n", fails: "security"},
		{rows: "48", name: "a mode of security by number", file: "FROM localhost/busybox\nRUN --security=2 true\n", fails: "security"},
		{rows: "48", name: "a mode of security that is empty", file: "FROM localhost/busybox\nRUN --security= grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED\n", fails: "*", never: "UNCONFINED"},
		{rows: "48", name: "without confinement, not allowed", file: "FROM localhost/busybox\nRUN --security=insecure true\n", fails: "--allow security.insecure"},
		{rows: "87", name: "escape sequences", file: "FROM localhost/busybox\nLABEL a=\"\x1b]0;title\x07\x1b[2J\u202e\"\nCOPY fi\x1b[31mle /x\n", fails: "*", never: "\x1b"},
		{rows: "87", name: "escape sequences in names of stages and files", file: "FROM localhost/busybox AS a\x1b[31m\nRUN true\n", fails: "*", never: "\x1b"},
		{rows: "87", name: "escape sequences of an instruction", file: "FROM localhost/busybox\nRUN true '\x1b[31m\x1b]0;t\x07'\n", never: "\x1b"},
	})
}
