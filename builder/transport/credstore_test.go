package transport

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/define"
)

// keeping is a helper that keeps what it is told in the directory $KEPT.
const keeping = `
key() { tr -c 'a-z0-9.\n' _; }
case $1 in
store) cat >"$KEPT/in"; host=$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' "$KEPT/in" | key); mv "$KEPT/in" "$KEPT/$host";;
erase) host=$(key); test -e "$KEPT/$host" || { echo credentials not found in native keychain; exit 1; }; rm "$KEPT/$host";;
list) echo '{"a.example":"me","b.example":"me"}';;
get) echo credentials not found in native keychain; exit 1;;
esac`

// accepts is a registry that takes any credentials; its name.
func accepts(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func plainHTTP(c *Client) *Client {
	insecure := false
	c.o.TLSVerify = &insecure
	return c
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHelperStores: login and logout reach the helper that an auth file names,
// and nothing of theirs is in the file.
func TestHelperStores(t *testing.T) {
	kept, host := t.TempDir(), accepts(t)
	t.Setenv("KEPT", kept)
	c, sys := withHelpers(t, map[string]string{"keeps": keeping}, map[string]string{host: "keeps", "a.example": "keeps"})
	plainHTTP(c)
	name := filepath.Join(kept, strings.ReplaceAll(host, ":", "_"))
	where := ""
	login := LoginOptions{Registry: host, Username: "me", Password: `p"w`, Stored: func(s string) { where = s }}
	before := read(t, sys.AuthFilePath)
	if err := c.Login(t.Context(), login); err != nil || where != "credential helper: keeps" {
		t.Fatalf("%v, stored in %q", err, where)
	}
	if got := read(t, name); got != `{"ServerURL":"`+host+`","Username":"me","Secret":"p\"w"}`+"\n" {
		t.Errorf("the helper got %s", got)
	}
	if got := read(t, sys.AuthFilePath); got != before {
		t.Errorf("the file was changed: %s", got)
	}
	if err := c.Logout(t.Context(), host, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("the helper has it still")
	}
	if err := c.Logout(t.Context(), "a.example", false); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	// A namespace is none of a helper's, whose file has no entry for it.
	if err := c.Logout(t.Context(), host+"/name", false); !errors.Is(err, define.ErrNotFound) {
		t.Errorf("a namespace: %v", err)
	}

	// Everything: the helper's, and the entries of the file.
	for _, h := range []string{strings.ReplaceAll(host, ":", "_"), "a.example"} {
		if err := os.WriteFile(filepath.Join(kept, h), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Logout(t.Context(), "", true); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(kept); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
	if got := read(t, sys.AuthFilePath); strings.Contains(got, "example") || strings.Contains(got, host) {
		t.Errorf("the file has %s", got)
	}
}

// TestHelperEntryBehind: an entry of the file's own, which the helper hides,
// goes with the helper's; what else a file holds stays.
func TestHelperEntryBehind(t *testing.T) {
	t.Setenv("KEPT", t.TempDir())
	c, sys := withHelpers(t, map[string]string{"keeps": keeping}, nil)
	text := `{"auths":{"a.example":{"auth":"bTpl"},"b.example":{"auth":"bTpl"}},"credHelpers":{"a.example":"keeps"},"other":{"x":1}}`
	if err := os.WriteFile(sys.AuthFilePath, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout(t.Context(), "a.example", false); err != nil {
		t.Error(err)
	}
	got := strings.NewReplacer("\n", "", "\t", "", " ", "").Replace(read(t, sys.AuthFilePath))
	if got != `{"auths":{"b.example":{"auth":"bTpl"}},"credHelpers":{"a.example":"keeps"},"other":{"x":1}}` {
		t.Error(got)
	}
}

// TestHelperStoreHangs: a helper that answers "get" but hangs when it is told
// to store or to erase is ended after a while, and with the context; what it
// says when it fails holds no password.
func TestHelperStoreHangs(t *testing.T) {
	host := accepts(t)
	c, sys := withHelpers(t, map[string]string{
		"hangs": "test $1 = get && exec echo '{}'; exec sleep 600",
		"fails": "test $1 = get && exec echo '{}'; cat >&2; exit 1",
	}, map[string]string{host: "hangs"})
	plainHTTP(c)
	login := func(ctx context.Context) error {
		return c.Login(ctx, LoginOptions{Registry: host, Username: "me", Password: "geheim"})
	}
	actions := map[string]func(context.Context) error{
		"storing": login,
		"erasing": func(ctx context.Context) error { return c.Logout(ctx, host, false) },
		"all":     func(ctx context.Context) error { return c.Logout(ctx, "", true) },
	}
	defer func(d time.Duration) { helperLimit = d }(helperLimit)
	helperLimit = 300 * time.Millisecond
	for name, do := range actions {
		if err := do(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer within 300ms") || !strings.Contains(err.Error(), sys.AuthFilePath) {
			t.Errorf("%s: %v", name, err)
		}
	}
	helperLimit = time.Hour
	for name, do := range actions {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("interrupted by the user")
		go func() { time.Sleep(100 * time.Millisecond); cancel(stop) }()
		if err := do(ctx); !errors.Is(err, stop) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(sys.AuthFilePath, []byte(`{"credHelpers":{"`+host+`":"fails"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := login(t.Context()); err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%v", err)
	}
}

// TestHelperOfRegistriesConf: the helpers that registries.conf names are tried
// in their order, and the file when its turn comes.
func TestHelperOfRegistriesConf(t *testing.T) {
	kept, host := t.TempDir(), accepts(t)
	t.Setenv("KEPT", kept)
	c, sys := withHelpers(t, map[string]string{"keeps": keeping, "fails": "exit 1"}, nil)
	plainHTTP(c)
	for conf, want := range map[string]string{
		`["fails", "keeps", "containers-auth.json"]`: "credential helper: keeps",
		`["fails", "containers-auth.json"]`:          sys.AuthFilePath,
	} {
		file := filepath.Join(t.TempDir(), "registries.conf")
		if err := os.WriteFile(file, []byte("credential-helpers = "+conf+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		own := *sys
		own.SystemRegistriesConfPath = file
		if got, err := c.setCredentials(t.Context(), &own, host, "me", "pass"); err != nil || got != want {
			t.Errorf("%s: %q, %v", conf, got, err)
		}
	}
	if !strings.Contains(read(t, sys.AuthFilePath), host) {
		t.Error("the file has nothing")
	}
	// What is in the file is found behind a helper that has nothing.
	file := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(file, []byte(`credential-helpers = ["keeps", "containers-auth.json"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	own := *sys
	own.SystemRegistriesConfPath = file
	if got, err := c.credentials(t.Context(), &own, "plain.example"); err != nil || got.Username != "m" {
		t.Errorf("%+v, %v", got, err)
	}
}
