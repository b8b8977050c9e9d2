package buildcontext

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
)

// repository makes a git repository from the files and returns its folder,
// <temp>/repo.git with a work tree, and its commit.
func repository(t *testing.T, files map[string]string) (dir, commit string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir = filepath.Join(t.TempDir(), "repo.git")
	write(t, dir, files)
	gitIn(t, dir, "init", "-q", "--initial-branch=main")
	commitAll(t, dir)
	return dir, strings.TrimSpace(gitIn(t, dir, "rev-parse", "HEAD"))
}

func commitAll(t *testing.T, dir string) {
	t.Helper()
	gitIn(t, dir, "add", "-A")
	gitIn(t, dir, "commit", "-q", "--allow-empty", "-m", "x")
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "protocol.file.allow=always", "-c", "commit.gpgSign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b", "GIT_AUTHOR_DATE=1500000000 +0000", "GIT_COMMITTER_DATE=1500000000 +0000")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("git %v: %v: %s", args, err, ee.Stderr)
		}
		t.Fatalf("git %v: %v", args, err)
	}
	return string(out)
}

func TestGit(t *testing.T) {
	t.Parallel()
	dir, first := repository(t, map[string]string{"Dockerfile": "FROM one", "run": "x", "sub/dir/Dockerfile": "FROM sub", "link": "-> /", "sub/link": "-> dir", "gitlink": "-> .git"})
	gitIn(t, dir, "update-index", "--chmod=+x", "run")
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	gitIn(t, dir, "tag", "v1")
	gitIn(t, dir, "checkout", "-q", "-b", "dev")
	write(t, dir, map[string]string{"Dockerfile": "FROM two", ".gitattributes": "* filter=lfs", ".lfsconfig": "[lfs]\n"})
	commitAll(t, dir)
	second := strings.TrimSpace(gitIn(t, dir, "rev-parse", "HEAD"))
	gitIn(t, dir, "checkout", "-q", "main")
	url := "file://" + dir
	for fragment, want := range map[string]string{
		"": "FROM one", "#main": "FROM one", "#v1": "FROM one", "#refs/tags/v1": "FROM one", "#dev": "FROM two",
		"#" + first: "FROM one", "#" + second: "FROM two", "#" + second[:8]: "FROM two",
		"#:sub/dir": "FROM sub", "#dev:sub/dir/": "FROM sub", "?branch=dev": "FROM two", "?tag=v1&commit=" + first[:10]: "FROM one", "?subdir=sub/dir": "FROM sub",
	} {
		c, err := open(t, Options{Location: url + fragment})
		if err != nil {
			t.Errorf("%s: %v", fragment, err)
			continue
		}
		if string(c.Containerfile) != want {
			t.Errorf("%s: %q", fragment, c.Containerfile)
		}
		if c.Commit != first && c.Commit != second {
			t.Errorf("%s: commit %s", fragment, c.Commit)
		}
		if _, err := c.Root().Stat(".git", false); err == nil {
			t.Errorf("%s: .git is there", fragment)
		}
	}
	for fragment, want := range map[string]string{
		"#nope": "it has no branch or tag nope: not found", "#" + strings.Repeat("0", 40): "is on no branch or tag",
		"#:link": "link is not a folder of the repository", "#:sub/link": "link is not a folder", "#:gitlink": "gitlink is not a folder", "#:.git": ".git is not part of the repository",
		"#:nope": "it has no folder nope: not found", "#:Dockerfile": "Dockerfile is not a folder", "?commit=" + second: "HEAD is commit " + first + ", not " + second,
	} {
		_, err := open(t, Options{Location: url + fragment})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "git repository file://") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %s", fragment, err, want)
		}
	}
	if _, err := open(t, Options{Location: url + "x/y.git"}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("missing repository: %v", err)
	}
}

// Modes and times are git's, not those of the moment.
func TestGitNormal(t *testing.T) {
	t.Parallel()
	dir, _ := repository(t, map[string]string{"a": "x", "d/run": "y"})
	if err := os.Chmod(filepath.Join(dir, "d/run"), 0o700); err != nil {
		t.Fatal(err)
	}
	commitAll(t, dir)
	g, err := ParseGitURL("file://" + dir + "?keep-git-dir=1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := CheckOut(context.Background(), g, GitOptions{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, mode := range map[string]os.FileMode{"a": 0o644, "d": 0o755 | os.ModeDir, "d/run": 0o755} {
		info, err := r.Root().Stat(name, false)
		if err != nil || info.Mode != mode || !info.ModTime.Equal(time.Unix(1500000000, 0)) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	if _, err := r.Root().Stat(".git/HEAD", false); err != nil {
		t.Errorf("keep-git-dir: %v", err)
	}
	if r.Name != "repo" {
		t.Errorf("name %s", r.Name)
	}
}

// A submodule may not be a repository of this host (CVE-2022-39253), and
// neither filters nor hooks of a repository run.
func TestGitHostile(t *testing.T) {
	t.Parallel()
	secret, _ := repository(t, map[string]string{"secret": "TOKEN"})
	dir, _ := repository(t, map[string]string{"Dockerfile": "FROM x", ".gitattributes": "* filter=evil diff=evil", ".gitconfig": "[filter \"evil\"]\n\tsmudge = touch " + secret + "/marker\n"})
	for _, url := range []string{secret, "file://" + secret} {
		gitIn(t, dir, "submodule", "add", "-q", "--force", url, "m"+itoa(len(url)))
	}
	commitAll(t, dir)
	c, err := open(t, Options{Location: "file://" + dir})
	if err == nil || !strings.Contains(err.Error(), "submodules") {
		t.Fatalf("a submodule of the host: %v", err)
	}
	c, err = open(t, Options{Location: "file://" + dir + "?submodules=false"})
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Containerfile) != "FROM x" {
		t.Errorf("%q", c.Containerfile)
	}
	if _, err := os.Lstat(secret + "/marker"); err == nil {
		t.Error("a filter ran")
	}
}

// Credentials reach the server they are for and nothing else: neither another
// host, nor a command line, nor an error.
func TestGitHTTP(t *testing.T) {
	t.Parallel()
	dir, commit := repository(t, map[string]string{"Dockerfile": "FROM http"})
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git-http-backend is not installed")
	}
	serve := func(folder string) http.Handler {
		return &cgi.Handler{Path: backend, Stderr: io.Discard, Root: "/" + filepath.Base(folder), Env: []string{
			"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		}}
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a foreign host got credentials")
		}
		if commands, _ := filepath.Glob("/proc/[0-9]*/cmdline"); len(commands) > 0 {
			for _, c := range commands {
				if line, _ := os.ReadFile(c); strings.Contains(string(line), "s3cr3t") {
					t.Errorf("in a command line: %q", line)
				}
			}
		}
		w.Header().Set("WWW-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(other.Close)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/away.git") {
			http.Redirect(w, r, other.URL+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
			return
		}
		if u, p, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/private/") && (u != "user" || p != "s3cr3t") {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/private")
		serve(dir).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	with := strings.Replace(server.URL, "http://", "http://user:s3cr3t@", 1)
	for _, location := range []string{server.URL + "/repo.git", with + "/private/repo.git#main", with + "/private/repo.git#" + commit} {
		c, err := open(t, Options{Location: location})
		if err != nil {
			t.Errorf("%s: %v", location, err)
			continue
		}
		if string(c.Containerfile) != "FROM http" || strings.Contains(c.Name, "s3cr3t") {
			t.Errorf("%s: %q", c.Name, c.Containerfile)
		}
	}
	for _, location := range []string{with + "/away.git", server.URL + "/private/repo.git", with + "/nope.git"} {
		_, err := open(t, Options{Location: location})
		if err == nil || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", location, err)
		}
	}
}

func TestGitMissing(t *testing.T) {
	t.Setenv("PATH", ".:relative")
	_, err := open(t, Options{Location: "git://127.0.0.1:1/x"})
	if !errors.Is(err, define.ErrUnsupported) || !strings.Contains(err.Error(), "git is not in PATH; install git") {
		t.Error(err)
	}
}

func TestGitCancel(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	stalled := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-stalled }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stalled) })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := Open(ctx, Options{Location: server.URL + "/x.git", TempDir: t.TempDir()})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 20*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}
