package security

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// withBusybox lets images of layers and configs of ours run steps.
const withBusybox = "COPY --from=localhost/busybox /bin /bin\n"

// config is what an image from elsewhere asks for, and a step that looks
// whether it was given.
type config struct {
	rows, name string
	config     map[string]any
	run        string
	never      string // must not be in the output
}

func configAttacks() (all []attack) {
	up := strings.Repeat("../", 12)
	for _, c := range []config{
		{rows: "52", name: "variables without a value", config: map[string]any{"Env": []string{"CANARY_TOKEN", "*", "CANARY*", "HOSTNAME", "=x", "", "PATH=/bin"}}, run: "env; cat /proc/1/environ /proc/self/environ"},
		{rows: "52", name: "variables for the loader", config: map[string]any{"Env": []string{"LD_PRELOAD=/evil.so", "GODEBUG=x", "BASH_ENV=/evil", "PATH=.:/bin"}}, run: "env"},
		{rows: "31", name: "working directory", config: map[string]any{"WorkingDir": "/proc/self/fd/7"}, run: "cat ./file ../../../CANARY_PATH/file"},
		{rows: "31", name: "working directory up", config: map[string]any{"WorkingDir": "/" + up + "CANARY_PATH"}, run: "cat ./file"},
		{rows: "40", name: "working directory, link", config: map[string]any{"WorkingDir": "/w/new/er"}, run: "pwd; cat ../../file"},
		{rows: "41", name: "volumes", config: map[string]any{"Volumes": map[string]any{"/" + up + "CANARY_PATH": map[string]any{}, "/v": map[string]any{}, "/v/dir": map[string]any{}, "/proc": map[string]any{}}}, run: "ls /v/; cat /v/file /CANARY_PATH/file"},
		{rows: "36", name: "volumes of the kernel's", config: map[string]any{"Volumes": map[string]any{"/proc/self/attr": map[string]any{}, "/proc": map[string]any{}, "/sys": map[string]any{}}}, run: "echo x >/proc/sysrq-trigger && echo WRI''TTEN"},
		{rows: "45", name: "a user out of range", config: map[string]any{"User": "4294967296"}, run: "echo IS''ROOT", never: "ISROOT"},
		{rows: "8", name: "security options", config: map[string]any{"SecurityOpt": []string{"seccomp=unconfined", "apparmor=unconfined"}, "Privileged": true, "CapAdd": []string{"ALL"},
			"HostConfig": map[string]any{"Privileged": true, "Binds": []string{"/CANARY_PATH:/c"}, "PidMode": "host"}, "Binds": []string{"/CANARY_PATH:/c"}, "Runtime": "evil"},
			run: "cat /c/file; grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED; grep -q 'CapBnd:.*000001ff' /proc/self/status && echo UNCON''FINED", never: "UNCONFINED"},
		{rows: "54", name: "labels", config: map[string]any{"Labels": map[string]string{"run.oci.handler": "krun", "run.oci.hooks.stderr": "/CANARY_PATH/file", "io.podman.annotations.seccomp": "unconfined",
			"io.podman.annotations.privileged": "TRUE", "io.containers.autoupdate": "x", "containerd.io/restart.status": "running", "org.opencontainers.image.title": "../../x",
			"PODMAN_SYSTEMD_UNIT": "x", "run": "podman run --privileged IMAGE"}},
			run: "grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED", never: "UNCONFINED"},
	} {
		all = append(all, attack{numbers(c.rows), c.name, c.try})
	}
	return all
}

func (c config) try(p *place) {
	p.env = append(p.env, "CANARY_TOKEN="+p.token, "CANARY="+p.token, "HOSTNAME="+p.token)
	layer := archive(p.t, []member{{kind: '5', name: "bin", mode: 0o755}, {kind: '2', name: "w", link: p.canary}, {kind: '2', name: "v", link: p.canary}})
	// CANARY stands for the canary's path.
	text, err := json.Marshal(c.config)
	p.must(err)
	var settings map[string]any
	p.must(json.Unmarshal(bytes.ReplaceAll(text, []byte("CANARY_PATH"), []byte(strings.TrimPrefix(p.canary, "/"))), &settings))
	layout := p.layoutOf(settings, layer)
	stdout, stderr, _ := p.run("", "build", "--no-cache", p.context(map[string]string{
		"Containerfile": "FROM oci:" + layout + ":x\n" + withBusybox + "RUN " + strings.ReplaceAll(c.run, "CANARY_PATH", strings.TrimPrefix(p.canary, "/")) + "; true\n"}))
	for _, never := range []string{c.never, "WRITTEN"} {
		if never != "" && strings.Contains(stdout+stderr, never) {
			p.t.Errorf("%q is in the output: %s", never, stderr)
		}
	}
	p.check()
}

// imageAttacks are about images and the steps on them, with another runtime
// and without a network.
func imageAttacks() []attack {
	return []attack{
		{[]int{54}, "what a runtime is given", runtimeBundle},
		{[]int{55}, "names of the network", networkNames},
		{[]int{81}, "servers of repositories", gitServers},
	}
}

// runtimeBundle: what an OCI runtime is given is the same with and
// without the labels, annotations and files that some runtimes obey.
func runtimeBundle(p *place) {
	t := p.t
	script := filepath.Join(p.work, "runc")
	p.must(os.WriteFile(script, []byte("#!/bin/sh\nb=\nwhile [ $# -gt 0 ]; do case $1 in --bundle|-b) b=$2;; --bundle=*) b=${1#*=};; esac; shift; done\n"+
		"[ -z \"$b\" ] || cat \"$b/config.json\" >"+p.work+"/spec\nexit 1\n"), 0o755))
	var specs []string
	for _, extra := range []string{"", "LABEL run.oci.handler=krun run.oci.hooks.stdout=/x io.podman.annotations.privileged=TRUE org.opencontainers.image.title=../../x\nCOPY Containerfile /.krun_config.json\n"} {
		dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\n" + extra + "RUN true\n"})
		p.run("", "build", "--no-cache", "--network", "host", "--isolation", "oci", "--runtime", script, dir)
		b, err := os.ReadFile(filepath.Join(p.work, "spec"))
		if err != nil {
			t.Skipf("the runtime was not given a bundle: %v", err)
		}
		p.must(os.Remove(filepath.Join(p.work, "spec")))
		for _, word := range []string{"krun", "io.podman", "run.oci.handler", "hooks"} {
			if strings.Contains(string(b), word) {
				t.Errorf("%q is in the runtime's document: %s", word, b)
			}
		}
		// Names of directories and hosts are made up for each build.
		specs = append(specs, regexp.MustCompile(`strata-(work|oci)-[0-9a-f-]+|"hostname":"[0-9a-f]+"`).ReplaceAllString(string(b), "-"))
	}
	if specs[0] != specs[1] {
		t.Errorf("the documents differ:\n%s\n%s", specs[0], specs[1])
	}
	p.check()
}

// networkNames: abstract sockets of the host, whose names everybody
// in its network namespace sees, are not there for steps with a network of
// their own, and one without any has no other device than lo.
func networkNames(p *place) {
	t := p.t
	l, err := net.Listen("unix", "@strata-canary-"+p.token)
	p.must(err)
	t.Cleanup(func() { l.Close() })
	if b, err := os.ReadFile("/proc/net/unix"); err != nil || !strings.Contains(string(b), p.token) {
		t.Skipf("the socket's name is not to be seen here either (%v)", err)
	}
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN cat /proc/net/unix; echo devices=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n') raw=$((0x$(grep CapEff /proc/self/status | cut -f2) >> 13 & 1))\n"})
	_, stderr, code := p.run("", "build", "--no-cache", "--network", "none", dir)
	if code != 0 || !strings.Contains(stderr, "devices=lo raw=0") {
		t.Errorf("exit status %d, want lo alone and no raw sockets: %s", code, stderr)
	}
	// run looks for the token in what it prints.
	_, stderr, code = p.run("", "build", "--no-cache", "--network", "private", dir)
	if code != 0 && !strings.Contains(stderr, "network") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	// Where that can be had, it is what steps have when nobody asks.
	if code == 0 {
		if _, stderr, code := p.run("", "build", "--no-cache", dir); code != 0 || strings.Contains(stderr, "host's network") {
			t.Errorf("by default: exit status %d: %s", code, stderr)
		}
	}
	p.check()
}

// gitServers: a server that never ends its answer.
func gitServers(p *place) {
	t := p.t
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"refs without end": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			w.Write([]byte("001e# service=git-upload-pack\n0000"))
			for i := 0; ; i++ {
				line := strings.Repeat("0", 38) + string("0123456789abcdef"[i/16%16]) + string("0123456789abcdef"[i%16]) + " refs/heads/" + strings.Repeat("x", 200) + "\n"
				if _, err := w.Write([]byte("00ff" + (line + strings.Repeat("y", 255))[:251])); err != nil {
					return
				}
			}
		},
		"garbage": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			w.Write([]byte(strings.Repeat("\xff\x00zzzz", 1<<16)))
		},
		"a length that is none": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			w.Write([]byte("001e# service=git-upload-pack\n0000ffff"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "refs without end" && !thorough() {
				t.Skip("takes 2 GiB of memory: with STRATA_SECURITY_TRIES only")
			}
			p := p.on(t)
			s := httptest.NewServer(http.HandlerFunc(answer))
			t.Cleanup(s.Close)
			start := time.Now()
			if _, stderr, code := p.run("", "build", s.URL+"/r.git"); code == 0 || !strings.Contains(stderr, "git") {
				t.Errorf("exit status %d: %s", code, stderr)
			}
			t.Logf("%s", time.Since(start).Round(time.Second))
			s.CloseClientConnections()
			p.check()
		})
	}
}

// rootAttacks: images whose kernel mount points, and what builders write to,
// are links.
func rootAttacks() (all []attack) {
	for _, c := range []struct {
		rows  string
		names []string
	}{
		{"39", []string{"dev", "dev/pts", "dev/shm", "dev/ptmx"}}, {"34", []string{"dev/null"}}, {"35", []string{"dev/console", "dev/pts/0"}},
		{"36", []string{"proc", "sys"}}, {"42", []string{"etc", "etc/resolv.conf", "etc/hosts", "etc/mtab", "run", "tmp"}},
	} {
		for _, name := range c.names {
			targets := []string{"CANARY", "/proc/sys/kernel/core_pattern", "CANARY/file", "../../../../../../../../../..CANARY", "/proc/self/fd/3"}
			if !thorough() {
				targets = targets[:2]
			}
			for _, to := range targets {
				all = append(all, attack{numbers(c.rows), name + " is a link to " + path.Base(to), func(p *place) {
					p.linkedRoot(name, strings.ReplaceAll(to, "CANARY", p.canary))
				}})
			}
		}
	}
	return append(all, attack{[]int{34}, "masked without a null device", maskedWithoutNull})
}

func (p *place) linkedRoot(name, to string) {
	members := []member{{kind: '5', name: "."}}
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		members = slices.Insert(members, 1, member{kind: '5', name: parent})
	}
	members = append(members, member{kind: '2', name: name, link: to})
	layout := p.layout(archive(p.t, members))
	p.run("", "build", "--no-cache", p.context(map[string]string{
		"Containerfile": "FROM oci:" + layout + ":x\n" + withBusybox + "RUN echo x >/dev/null; echo broken >/dev/ptmx; cat /dev/file /etc/file; true\nCOPY Containerfile /" + name + "/\n"}))
	p.check()
	// With a terminal there is a console (row 35).
	if out, _, code := p.run("", "from", "-q", "oci:"+layout+":x"); code == 0 {
		container := strings.TrimSpace(out)
		p.run("", "copy", "--from", "localhost/busybox", container, "/bin", "/bin")
		p.run("", "run", "-t", container, "--", "sh", "-c", "echo x >/dev/console; ls -l /dev/console /dev/pts; true")
		p.ok("", "rm", container)
	}
	p.check()
}

// maskedWithoutNull: what is masked is so whatever the image has for a device.
func maskedWithoutNull(p *place) {
	const look = "RUN for f in /proc/kcore /proc/keys /proc/timer_list; do test \"$(head -c1 $f 2>&- | wc -c)\" = 0 || echo UN''MASKED $f; done; true\n"
	for name, null := range map[string]member{
		"a file": {kind: '0', name: "dev/null", content: "text"}, "a directory": {kind: '5', name: "dev/null"}, "a link to nothing": {kind: '2', name: "dev/null", link: "/nowhere"},
		"a link to memory": {kind: '2', name: "dev/null", link: "/proc/kcore"}, "not there": {kind: '5', name: "dev"},
	} {
		layout := p.layout(archive(p.t, []member{{kind: '5', name: "dev"}, null}))
		if _, stderr, _ := p.run("", "build", "--no-cache", p.context(map[string]string{"Containerfile": "FROM oci:" + layout + ":x\n" + withBusybox + look})); strings.Contains(stderr, "UNMASKED") {
			p.t.Errorf("/dev/null is %s: %s", name, stderr)
		}
	}
	p.check()
}
