package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
)

func examineHere(t *testing.T, o store.Options) *Report {
	t.Helper()
	return Examine(context.Background(), Options{Namespaces: userns.Current(), Store: o})
}

// TestReport: the parts that programs rely on.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	r := examineHere(t, store.Options{Root: root, RunRoot: filepath.Join(dir, "run"), Driver: "overlay"})
	id := regexp.MustCompile(`^[a-z0-9_]+\.[a-z0-9_+]+$`)
	ids := map[string]bool{}
	for _, f := range append(append([]Finding{}, r.Uses...), r.Host...) {
		if !id.MatchString(f.ID) || ids[f.ID] {
			t.Errorf("id %q is malformed or not the only one", f.ID)
		}
		ids[f.ID] = true
		if f.Group == "" || f.Name == "" || f.Text == "" || strings.ContainsAny(f.Text+f.Remedy, "\n\r\x1b") {
			t.Errorf("%+v", f)
		}
		switch f.State {
		case OK, Lesser, Missing, Neutral:
		default:
			t.Errorf("%s: state %q", f.ID, f.State)
		}
		if f.State == OK && f.Remedy != "" {
			t.Errorf("%s is ok and has a remedy: %s", f.ID, f.Remedy)
		}
	}
	for _, want := range []string{
		"host.kernel", "namespaces.user", "namespaces.mount", "namespaces.pid", "namespaces.network", "namespaces.proc", "ids.map",
		"confinement.seccomp", "confinement.lsm", "cgroups.version", "overlay.mount", "storage.root", "storage.driver",
		"storage.space", "storage.reflink", "network.tun", "programs.fuse_overlayfs", "platforms.native", "platforms.emulated", "configuration.storage_conf",
		"configuration.registries_conf", "configuration.registries_d", "configuration.policy_json", "configuration.containers_conf",
		"programs.runc", "use.isolation", "use.ids", "use.store", "use.storage", "use.network",
	} {
		if !ids[want] {
			t.Errorf("no finding %s", want)
		}
	}
	if r.Version != 1 {
		t.Errorf("version %d", r.Version)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	for _, d := range []string{dir, tmp} {
		if left, _ := os.ReadDir(d); len(left) > 0 {
			t.Errorf("left in %s: %v", d, left)
		}
	}
}

func find(t *testing.T, r *Report, id string) Finding {
	t.Helper()
	for _, f := range append(append([]Finding{}, r.Uses...), r.Host...) {
		if f.ID == id {
			return f
		}
	}
	t.Fatalf("no finding %s", id)
	return Finding{}
}

// TestUnwritable: a store that cannot be written is said and nothing fails.
func TestUnwritable(t *testing.T) {
	r := examineHere(t, store.Options{Root: "/proc/strata", RunRoot: "/proc/strata", Driver: "overlay"})
	if r.Usable || !strings.Contains(r.Reason, "/proc") {
		t.Errorf("usable %t, reason %q", r.Usable, r.Reason)
	}
	if f := find(t, r, "storage.root"); f.State != Missing || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
	if f := find(t, r, "overlay.mount"); !strings.Contains(f.Text, "not tried") {
		t.Errorf("%+v", f)
	}
}

// TestRefused: without namespaces there is a report all the same.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	r := Examine(context.Background(), Options{
		Namespaces: userns.Info{UID: 1001, GID: 1001}, Refused: unix.EPERM,
		Store: store.Options{Root: filepath.Join(dir, "r"), RunRoot: filepath.Join(dir, "u")},
	})
	if r.Usable || r.Reason == "" {
		t.Errorf("%+v", r)
	}
	if f := find(t, r, "use.isolation"); f.State != Missing {
		t.Errorf("%+v", f)
	}
}

// TestCredentials: names are shown, secrets never.
func TestCredentials(t *testing.T) {
	const secret = "c2VjcmV0OnNlY3JldA=="
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	t.Setenv("DOCKER_CONFIG", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	auth := write("run/containers/auth.json", `{"auths":{"b.example":{"auth":"`+secret+`"},"https://user:`+secret+`@a.example/v1/":{}}}`)
	docker := write(".docker/config.json", `{"credsStore":"pass","credHelpers":{"c.example":"ecr-login"}}`)
	broken := write(".dockercfg", `{"d.example":`+secret)
	x := &examiner{report: &Report{}, group: "credentials"}
	x.credentials(context.Background())
	doc, err := json.Marshal(x.report)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), secret) {
		t.Errorf("a secret is in %s", doc)
	}
	for i, want := range []string{
		auth + ": a.example/v1/, b.example", docker + ": c.example; helpers: docker-credential-ecr-login, docker-credential-pass",
		broken + ": not valid JSON",
	} {
		if got := x.report.Host[i].Text; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// The first file that is named by a variable is the only one.
	t.Setenv("REGISTRY_AUTH_FILE", auth)
	if files := authFiles(); len(files) != 1 || files[0] != auth {
		t.Errorf("%q", files)
	}
}

// TestAuthFileKinds: what is no file is not opened for long.
func TestAuthFileKinds(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{fifo, t.TempDir(), "/dev/zero"} {
		if _, _, err := readAuth(f); err == nil {
			t.Errorf("%s was read", f)
		}
	}
}

// TestClone: a process in new namespaces is not there afterwards.
func TestClone(t *testing.T) {
	if err := clone(unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err == nil {
		t.Errorf("process %d is left", pid)
	}
	if got := mapText([]byte("         0       1000          1\n 1 100000 65536\n")); got != "0:1000+1 1:100000+65536" {
		t.Error(got)
	}
}
