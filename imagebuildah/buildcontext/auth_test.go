package buildcontext

import (
	"context"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func secretsOf(m map[string]string) Secrets {
	return func(id string) ([]byte, bool, error) {
		v, ok := m[id]
		return []byte(v), ok, nil
	}
}

// Row "ADD | HTTP_AUTH_HEADER_<host> / HTTP_AUTH_TOKEN_<host> secrets".
func TestHTTPSecrets(t *testing.T) {
	t.Parallel()
	u, _ := url.Parse("https://host.example:8443/file")
	for name, c := range map[string]struct {
		secrets    map[string]string
		want, fail string
	}{
		"none":         {nil, "", ""},
		"token":        {map[string]string{"HTTP_AUTH_TOKEN_host.example": "t0ken\n"}, "Bearer t0ken", ""},
		"header":       {map[string]string{"HTTP_AUTH_HEADER_host.example": "Basic abc"}, "Basic abc", ""},
		"both":         {map[string]string{"HTTP_AUTH_HEADER_host.example": "Basic abc", "HTTP_AUTH_TOKEN_host.example": "t"}, "Bearer t", ""},
		"another host": {map[string]string{"HTTP_AUTH_TOKEN_example": "t", "HTTP_AUTH_TOKEN_": "t", "HTTP_AUTH_TOKEN_host.example:8443": "t"}, "", ""},
		"two lines":    {map[string]string{"HTTP_AUTH_TOKEN_host.example": "t0ken\r\nX-Other: 1"}, "", "secret HTTP_AUTH_TOKEN_host.example: want one line"},
	} {
		got, err := secretsOf(c.secrets).forHTTP(u)
		if got != c.want || (err == nil) != (c.fail == "") || err != nil && (!strings.Contains(err.Error(), c.fail) || strings.Contains(err.Error(), "t0ken")) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A header goes to the host that it is for, not to where that redirects to.
func TestHTTPSecretsRedirect(t *testing.T) {
	t.Parallel()
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		_, _ = w.Write([]byte("content"))
	}))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, other.URL, http.StatusFound)
	}))
	defer server.Close()
	d, err := Download(t.Context(), server.URL, DownloadOptions{TempDir: t.TempDir(), Secrets: secretsOf(map[string]string{"HTTP_AUTH_TOKEN_127.0.0.1": "t0ken"})})
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	if len(elsewhere) != 1 || elsewhere[0] != "" {
		t.Errorf("the other host was sent %q", elsewhere)
	}
	_, err = Download(t.Context(), server.URL, DownloadOptions{TempDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "--secret id=HTTP_AUTH_TOKEN_127.0.0.1") {
		t.Errorf("without the secret: %v", err)
	}
	_, err = Download(t.Context(), server.URL, DownloadOptions{TempDir: t.TempDir(), Secrets: secretsOf(map[string]string{"HTTP_AUTH_TOKEN_127.0.0.1": "wr0ng"})})
	if err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with a wrong one: %v", err)
	}
}

// gitServer serves the repositories of a folder to those with the header.
func gitServer(t *testing.T, dir, header string) *httptest.Server {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	backend := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git-http-backend")
	}
	handler := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"}, Stderr: nopWriter{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != header {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

type nopWriter struct{}

func (nopWriter) Write(p []byte) (int, error) { return len(p), nil }

// GIT_AUTH_TOKEN and GIT_AUTH_HEADER, with the host and without.
func TestGitSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", "work"},
		{"-C", "work", "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "--allow-empty", "-m", "one"},
		{"clone", "-q", "--bare", "work", "r.git"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("git %v: %v %s", args, err, out)
		}
	}
	// base64 of x-access-token:t0ken
	server := gitServer(t, dir, "basic eC1hY2Nlc3MtdG9rZW46dDBrZW4=")
	host := server.Listener.Addr().(*net.TCPAddr).String()
	for name, c := range map[string]struct {
		secrets map[string]string
		ok      bool
	}{
		"token":           {map[string]string{"GIT_AUTH_TOKEN": "t0ken\n"}, true},
		"token of host":   {map[string]string{"GIT_AUTH_TOKEN." + host: "t0ken", "GIT_AUTH_TOKEN": "wr0ng"}, true},
		"header":          {map[string]string{"GIT_AUTH_HEADER": "basic eC1hY2Nlc3MtdG9rZW46dDBrZW4="}, true},
		"header of host":  {map[string]string{"GIT_AUTH_HEADER." + host: "basic eC1hY2Nlc3MtdG9rZW46dDBrZW4=", "GIT_AUTH_TOKEN": "wr0ng"}, true},
		"of another host": {map[string]string{"GIT_AUTH_TOKEN.other.example": "t0ken"}, false},
		"wrong":           {map[string]string{"GIT_AUTH_TOKEN": "wr0ng"}, false},
		"none":            {nil, false},
	} {
		g, err := ParseGitURL(server.URL + "/r.git")
		if err != nil {
			t.Fatal(err)
		}
		r, err := CheckOut(context.Background(), g, GitOptions{TempDir: t.TempDir(), Secrets: secretsOf(c.secrets), KeepGitDir: true})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			if strings.Contains(err.Error(), "wr0ng") || strings.Contains(err.Error(), "d3Iwbmc") {
				t.Errorf("%s: the error has the secret: %v", name, err)
			}
			continue
		}
		// Nothing of it is kept in the repository's own configuration.
		config, err := os.ReadFile(filepath.Join(r.temp, "context", ".git", "config"))
		if err != nil || strings.Contains(string(config), "eC1hY2Nlc3") {
			t.Errorf("%s: .git/config: %v\n%s", name, err, config)
		}
		_ = r.Close()
	}
}
