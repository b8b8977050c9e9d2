package security

import (
	"archive/tar"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hostAttacks are about other hosts, and what is known of the user there.
func hostAttacks() []attack {
	return []attack{
		{[]int{28, 29}, "passwords in URLs", passwordsInURLs},
		{[]int{73}, "names in an archive", archiveNames},
		{[]int{68}, "credential helpers", credentialHelpers},
	}
}

// passwordsInURLs: what a URL, a proxy variable or a secret holds is in no
// log, image, cache or temporary file.
func passwordsInURLs(p *place) {
	t := p.t
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "content")
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	for _, url := range []string{"http://user:" + p.token + "@" + host + "/file", "http://" + p.token + "@" + host + "/missing"} {
		dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nADD " + url + " /x\nRUN true\n"})
		// The file of instructions is the user's own and may be shown by line;
		// it is not in the store.
		p.leaks("--log-level", "trace", "build", "--progress", "plain", "-t", "url", dir)
		p.leaks("build", "--explain", "-t", "url", dir)
	}
	for _, url := range []string{"http://user:" + p.token + "@" + host + "/r.git", "http://user:" + p.token + "@" + host + "/missing"} {
		p.leaks("--log-level", "trace", "build", url)
	}
	p.env = append(p.env, "SECRET="+p.token, "http_proxy=", "no_proxy=*")
	dir := p.context(map[string]string{"Containerfile": "FROM localhost/busybox\nRUN --mount=type=secret,id=s grep -q . /run/secrets/s\n"})
	if _, code := p.leaks("--log-level", "trace", "build", "--secret", "id=s,env=SECRET", dir); code != 0 {
		t.Error("a secret of the environment was not mounted")
	}
	p.check()
}

// leaks runs strata and looks for the token in what it prints.
func (p *place) leaks(args ...string) (stderr string, code int) {
	p.t.Helper()
	stdout, stderr, code := p.run("", args...)
	if code == 0 {
		for _, a := range [][]string{{"history", "--format", "json", "url"}, {"inspect", "url"}} {
			out, _, _ := p.run("", a...)
			stdout += out
		}
	}
	if strings.Contains(stdout+stderr, p.token) {
		p.t.Errorf("strata %q shows a password", args)
	}
	return stderr, code
}

// archiveNames: names in an archive of images are not paths.
func archiveNames(p *place) {
	t := p.t
	up := strings.Repeat("../", 12) + strings.TrimPrefix(p.canary, "/")
	for i, c := range []struct{ config, layer, link string }{
		{config: up + "/file", layer: "l.tar"}, {config: p.canary + "/file", layer: p.canary + "/file"},
		{config: "c.json", layer: up + "/file"}, {config: "c.json", layer: "l.tar", link: p.canary + "/file"}, {config: "c.json", layer: "l.tar", link: "/dev/zero"},
	} {
		members := []member{
			{kind: tar.TypeReg, name: "manifest.json", content: fmt.Sprintf(`[{"Config":%q,"RepoTags":["../../x:latest"],"Layers":[%q]}]`, c.config, c.layer)},
			{kind: tar.TypeReg, name: "repositories", content: `{"../../x":{"latest":"../../../x"}}`},
			{kind: tar.TypeReg, name: "c.json", content: `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`},
		}
		if c.link != "" {
			members = append(members, member{kind: tar.TypeSymlink, name: "l.tar", link: c.link})
		} else {
			members = append(members, member{kind: tar.TypeReg, name: "l.tar", content: string(archive(t, nil))})
		}
		file := filepath.Join(p.work, fmt.Sprintf("d%d.tar", i))
		p.must(os.WriteFile(file, archive(t, members), 0o644))
		if _, _, code := p.run("", "pull", "-q", "docker-archive:"+file); code == 0 {
			t.Errorf("%+v: pulled", c)
		}
		p.check()
	}
}

// credentialHelpers: a credential helper that fails is an error, or no
// credentials; never somebody else's. One that hangs ends with the command.
func credentialHelpers(p *place) {
	t := p.t
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get("Authorization"); h != "" && h != "Basic Og==" { // nobody, without a password
			t.Errorf("%s %s came with credentials: %s", r.Method, r.URL, h)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	bin := filepath.Join(p.work, "bin")
	p.must(os.Mkdir(bin, 0o755))
	for name, script := range map[string]string{
		"fails": "exit 1", "garbage": "head -c 4096 /dev/zero", "other": `echo '{"ServerURL":"private.example","Username":"","Secret":""}'`,
	} {
		p.must(os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+filepath.Join(p.work, "docker"))
	p.must(os.Mkdir(filepath.Join(p.work, "docker"), 0o700))
	// What a helper of that name must not lead to.
	private := `"auths":{"private.example":{"auth":"dTpw"}}`
	for _, helper := range []string{"missing", "fails", "garbage", "other"} {
		p.must(os.WriteFile(filepath.Join(p.work, "docker", "config.json"), fmt.Appendf(nil, `{%s,"credHelpers":{%q:%q}}`, private, host, helper), 0o600))
		_, stderr, code := p.run("", "pull", "--tls-verify=false", "--retry=0", host+"/app:v1")
		if code == 0 || !strings.Contains(stderr, host) {
			t.Errorf("helper %s: exit status %d: %s", helper, code, stderr)
		}
	}
	hangingHelper(p, host, bin)
	p.check()
}

// hangingHelper: a helper that does not answer is waited for a while only, and
// ends with the command that asked it, as do its own children.
func hangingHelper(p *place, host, bin string) {
	// The child keeps the helper's output open. It is known by its argument,
	// since the helper may be in a PID namespace.
	long, began := fmt.Sprintf("9%d", time.Now().UnixNano()%1e8), filepath.Join(p.work, "began")
	p.must(os.WriteFile(filepath.Join(bin, "docker-credential-hangs"), []byte("#!/bin/sh\nsleep "+long+" &\n: >"+began+"\nwait\n"), 0o755))
	p.must(os.WriteFile(filepath.Join(p.work, "docker", "config.json"), fmt.Appendf(nil, `{"credHelpers":{%q:"hangs"}}`, host), 0o600))
	file := p.context(map[string]string{"Containerfile": "FROM " + host + "/app:v1\n"})
	running := func() bool {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		return slices.ContainsFunc(all, func(f string) bool {
			b, _ := os.ReadFile(f)
			return string(b) == "sleep\x00"+long+"\x00"
		})
	}
	// soon waits until a condition holds.
	soon := func(f func() bool) bool {
		for range 3000 {
			if f() {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}
	for _, args := range [][]string{{"pull", "--tls-verify=false", host + "/app:v1"}, {"build", "--tls-verify=false", file}} {
		cmd := exec.Command(p.binary, args...)
		cmd.Env, cmd.Dir = p.env, p.work
		var errs strings.Builder
		cmd.Stderr = &errs
		p.must(cmd.Start())
		stop := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		if !soon(func() bool { _, err := os.Lstat(began); return err == nil && running() }) {
			p.t.Error("the helper did not start")
		}
		p.must(cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		stop.Stop()
		if code := cmd.ProcessState.ExitCode(); code != 130 || strings.Count("\n"+errs.String(), "\nError: ") != 1 {
			p.t.Errorf("strata %q, interrupted: exit status %d: %s", args, code, errs.String())
		}
		if !soon(func() bool { return !running() }) {
			p.t.Errorf("strata %q, interrupted: the helper's child goes on", args)
		}
		p.must(os.Remove(began))
	}
	if thorough() {
		if _, stderr, code := p.run("", "pull", "--tls-verify=false", host+"/app:v1"); code != 125 || !strings.Contains(stderr, "docker-credential-hangs: no answer") {
			p.t.Errorf("exit status %d: %s", code, stderr)
		}
	}
}
