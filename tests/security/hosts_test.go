package security

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCredentialsInURLs: rows 28, 29: what a URL, a proxy variable or a
// secret holds is in no log, image, cache or temporary file.
func TestCredentialsInURLs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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

// TestArchiveNames: row 73: names in an archive of images are not paths.
func TestArchiveNames(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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

// TestFewDescriptors: row 85: with any limit on open files a build is right or
// fails with an error.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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

// TestHelpers: row 68: a credential helper that fails is an error, or no
// credentials; never somebody else's.
func TestHelpers(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
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
	p.check()
}
