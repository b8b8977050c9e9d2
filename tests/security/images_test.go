package security

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// withBusybox lets images of layers and configs of ours run steps.
const withBusybox = "COPY --from=localhost/busybox /bin /bin\n"

// TestConfigs: rows 8, 31, 41, 52 and 54: what the config of an image from
// elsewhere may ask for.
func TestConfigs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.env = append(p.env, "CANARY_TOKEN="+p.token, "CANARY="+p.token, "HOSTNAME="+p.token)
	layer := archive(t, []member{{kind: '5', name: "bin", mode: 0o755}, {kind: '2', name: "w", link: p.canary}, {kind: '2', name: "v", link: p.canary}})
	up := strings.Repeat("../", 12) + strings.TrimPrefix(p.canary, "/")
	for name, c := range map[string]struct {
		config map[string]any
		run    string
		never  string
	}{
		"52 variables without a value": {config: map[string]any{"Env": []string{"CANARY_TOKEN", "*", "CANARY*", "HOSTNAME", "=x", "", "PATH=/bin"}}, run: "env; cat /proc/1/environ /proc/self/environ"},
		"52 variables for the loader":  {config: map[string]any{"Env": []string{"LD_PRELOAD=/evil.so", "GODEBUG=x", "BASH_ENV=/evil", "PATH=.:/bin"}}, run: "env"},
		"31 working directory":         {config: map[string]any{"WorkingDir": "/proc/self/fd/7"}, run: "cat ./file ../../.." + p.canary + "/file"},
		"31 working directory up":      {config: map[string]any{"WorkingDir": "/" + up}, run: "cat ./file"},
		"40 working directory, link":   {config: map[string]any{"WorkingDir": "/w/new/er"}, run: "pwd; cat ../../file"},
		"41 volumes":                   {config: map[string]any{"Volumes": map[string]any{"/" + up: map[string]any{}, "/v": map[string]any{}, "/v/dir": map[string]any{}, "/proc": map[string]any{}}}, run: "ls /v/; cat /v/file " + p.canary + "/file"},
		"36 volumes of the kernel's":   {config: map[string]any{"Volumes": map[string]any{"/proc/self/attr": map[string]any{}, "/proc": map[string]any{}, "/sys": map[string]any{}}}, run: "echo x >/proc/sysrq-trigger && echo WRI''TTEN"},
		"45 a user out of range":       {config: map[string]any{"User": "4294967296"}, run: "echo IS''ROOT", never: "ISROOT"},
		"8 security options": {config: map[string]any{"SecurityOpt": []string{"seccomp=unconfined", "apparmor=unconfined"}, "Privileged": true, "CapAdd": []string{"ALL"},
			"HostConfig": map[string]any{"Privileged": true, "Binds": []string{p.canary + ":/c"}, "PidMode": "host"}, "Binds": []string{p.canary + ":/c"}, "Runtime": "evil"},
			run: "cat /c/file; grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED; grep -q 'CapBnd:.*000001ff' /proc/self/status && echo UNCON''FINED", never: "UNCONFINED"},
		"54 labels": {config: map[string]any{"Labels": map[string]string{"run.oci.handler": "krun", "run.oci.hooks.stderr": p.canary + "/file", "io.podman.annotations.seccomp": "unconfined",
			"io.podman.annotations.privileged": "TRUE", "io.containers.autoupdate": "x", "containerd.io/restart.status": "running", "org.opencontainers.image.title": "../../x",
			"PODMAN_SYSTEMD_UNIT": "x", "run": "podman run --privileged IMAGE"}},
			run: "grep -q 'Seccomp:.*2' /proc/self/status || echo UNCON''FINED", never: "UNCONFINED"},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.on(t)
			layout := p.layoutOf(c.config, layer)
			stdout, stderr, _ := p.run("", "build", "--no-cache", p.context(map[string]string{
				"Containerfile": "FROM oci:" + layout + ":x\n" + withBusybox + "RUN " + c.run + "; true\n"}))
			if c.never != "" && strings.Contains(stdout+stderr, c.never) {
				t.Errorf("%q is in the output: %s", c.never, stderr)
			}
			if strings.Contains(stdout+stderr, "WRITTEN") {
				t.Errorf("the kernel's file was written: %s", stderr)
			}
			p.check()
		})
	}
}

// TestRuntimeBundle: row 54: what an OCI runtime is given is the same with and
// without the labels, annotations and files that some runtimes obey.
func TestRuntimeBundle(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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

// TestNetworkNames: row 55: abstract sockets of the host, whose names everybody
// in its network namespace sees, are not there for steps with a network of
// their own, and one without any has no other device than lo.
func TestNetworkNames(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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

// TestGitServers: row 81: a server that never ends its answer.
func TestGitServers(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	p := newPlace(t)
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
