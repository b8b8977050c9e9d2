package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/types"
)

// withHelpers makes credential helpers of shell scripts and a client whose auth
// file names them by host.
func withHelpers(t *testing.T, scripts, byHost map[string]string) (*Client, *types.SystemContext) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, helperPrefix+name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var named []string
	for host, name := range byHost {
		named = append(named, fmt.Sprintf("%q:%q", host, name))
	}
	file := filepath.Join(dir, "auth.json")
	// "bTpl" is m:e.
	text := `{"auths":{"plain.example":{"auth":"bTpl"}},"credHelpers":{` + strings.Join(named, ",") + `}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(nil, Options{Authfile: file}, nil)
	sys, err := c.system(define.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	return c, sys
}

func authorised(t *testing.T, c *Client, sys *types.SystemContext, name string) (*types.DockerAuthConfig, error) {
	t.Helper()
	refs, err := c.remoteReferences(sys, kindDocker, name, name)
	if err != nil {
		t.Fatal(err)
	}
	own, err := c.reach(t.Context(), sys, refs[0])
	if err != nil {
		return nil, err
	}
	return own.DockerAuthConfig, nil
}

func TestHelperAnswers(t *testing.T) {
	byHost := map[string]string{}
	scripts := map[string]string{
		"good":    `test "$1" = get && test "$(cat)" = good.example && echo '{"ServerURL":"x","Username":"me","Secret":"pass"}'`,
		"token":   `echo '{"Username":"<token>","Secret":"tok"}'`,
		"nothing": `echo credentials not found in native keychain; exit 1`,
		"empty":   `echo '{}'`,
		"fails":   `echo the keyring is locked >&2; exit 3`,
		"garbage": `head -c 3000000 /dev/zero`,
	}
	for name := range scripts {
		byHost[name+".example"] = name
	}
	byHost["missing.example"], byHost["slash.example"] = "missing", "../../x"
	c, sys := withHelpers(t, scripts, byHost)
	for name, want := range map[string]types.DockerAuthConfig{
		"good": {Username: "me", Password: "pass"}, "token": {IdentityToken: "tok"}, "nothing": {}, "empty": {},
	} {
		if got, err := authorised(t, c, sys, name+".example/a/b:v1"); err != nil || got == nil || *got != want {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, want)
		}
	}
	// Hosts without a helper are containers/image's.
	for _, host := range []string{"plain.example", "other.example"} {
		if got, err := authorised(t, c, sys, host+"/a:v1"); err != nil || got != nil {
			t.Errorf("%s: %+v %v", host, got, err)
		}
	}
	for name, want := range map[string]string{"fails": "exit status 3: the keyring is locked", "garbage": "not the JSON", "missing": "not in PATH: install it", "slash": "not in PATH"} {
		_, err := authorised(t, c, sys, name+".example/a:v1")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name+".example") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestHelperHangs: a helper that does not answer is ended, with its children,
// after a while and with the context. So it is for mirrors, login and logout.
func TestHelperHangs(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	// The child keeps the helper's standard output open.
	c, sys := withHelpers(t, map[string]string{"hangs": "sleep 600 & echo $$ $! >" + pids + "; wait"},
		map[string]string{"hangs.example": "hangs"})
	gone := func() {
		t.Helper()
		b, err := os.ReadFile(pids)
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range strings.Fields(string(b)) {
			for i := 0; ; i++ {
				// A zombie of init's is as good as gone.
				stat, err := os.ReadFile("/proc/" + pid + "/stat")
				if err != nil || strings.Contains(string(stat), ") Z ") {
					break
				}
				if i > 1000 {
					t.Fatalf("process %s of the helper goes on", pid)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		os.Remove(pids)
	}
	wait := func() {
		for range 6000 {
			if b, _ := os.ReadFile(pids); strings.HasSuffix(string(b), "\n") {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, ask := range map[string]func(context.Context) error{
		"get":        func(ctx context.Context) error { _, err := c.credentials(ctx, sys, "hangs.example/a"); return err },
		"logout":     func(ctx context.Context) error { return c.Logout(ctx, "hangs.example", false) },
		"logout all": func(ctx context.Context) error { return c.Logout(ctx, "", true) },
		"who": func(ctx context.Context) error {
			return c.Login(ctx, LoginOptions{Registry: "hangs.example", GetLogin: true})
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("interrupted by the user")
		go func() { wait(); cancel(stop) }()
		if err := ask(ctx); !errors.Is(err, stop) || !strings.Contains(err.Error(), "docker-credential-hangs") {
			t.Errorf("%s: %v", name, err)
		}
		gone()
	}

	defer func(d time.Duration) { helperLimit = d }(helperLimit)
	helperLimit = 500 * time.Millisecond
	_, err := authorised(t, c, sys, "hangs.example/a:v1")
	if err == nil || !strings.Contains(err.Error(), "docker-credential-hangs, asked for hangs.example: no answer within 500ms") || !strings.Contains(err.Error(), sys.AuthFilePath) {
		t.Errorf("%v", err)
	}
	// A mirror that is asked first is one more host.
	conf := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(conf, []byte("[[registry]]\nlocation = \"front.example\"\n[[registry.mirror]]\nlocation = \"hangs.example\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mirrored := *sys
	mirrored.SystemRegistriesConfPath = conf
	if _, err := authorised(t, c, &mirrored, "front.example/a:v1"); err == nil || !strings.Contains(err.Error(), "docker-credential-hangs") {
		t.Errorf("a mirror's helper: %v", err)
	}
	// Login stores.
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	insecure := false
	c, _ = withHelpers(t, nil, map[string]string{host: "hangs"})
	c.o.TLSVerify = &insecure
	if err := c.Login(t.Context(), LoginOptions{Registry: host, Username: "me", Password: "pass"}); err == nil || !strings.Contains(err.Error(), "storing the credentials of "+host+": no answer") {
		t.Errorf("login: %v", err)
	}
	// Helpers of registries.conf are asked for every host, and one that does
	// not answer is not passed over.
	conf += "2" // the first is remembered
	if err := os.WriteFile(conf, []byte("credential-helpers = [\"hangs\", \"containers-auth.json\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	named := *sys
	named.SystemRegistriesConfPath = conf
	if _, err := authorised(t, c, &named, "any.example/a:v1"); err == nil || !strings.Contains(err.Error(), "take it out of registries.conf") {
		t.Errorf("a helper of registries.conf: %v", err)
	}
}
