//go:build real

// Package real builds what people build: a compiled program, a Go service and
// a Node service, on a Debian made with mmdebstrap, with packages from the
// registries that the host reaches. Each image is then run.
//
// It needs mmdebstrap and those registries, and takes minutes:
//
//	make test-real
package real

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stratabuild/strata/tests/testenv"
)

// caBundle is the host's set of certificates, which steps need to reach the
// registries as the host does.
const caBundle = "/etc/ssl/certs/ca-certificates.crt"

// builder is a tool to build with: strata, or a peer for comparison.
type builder struct {
	name  string
	build func(tag, dir string, cached bool, args ...string) *exec.Cmd
	run   func(tag, dir string) *exec.Cmd
}

// timing is a row of the table that the test prints.
type timing struct {
	Image, Tool  string
	Cold, Cached time.Duration
}

func TestReal(t *testing.T) {
	work := t.TempDir()
	makeBase(t, filepath.Join(work, "debian"))
	tools := []builder{strata(t, work)}
	if b, ok := buildah(t, work); ok {
		tools = append(tools, b)
	}
	args := registryArgs(t)
	var rows []timing
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			rows = append(rows, measure(t, tool, work, "debian", nil, ""))
			for _, c := range []struct{ name, want string }{
				{"c", "9592 primes up to 100000"},
				{"go", "aad03681-8b63-5304-89e0-8ca8f49461b5"},
				{"node", `{"hello":"strata"`},
			} {
				copyContext(t, c.name, filepath.Join(work, c.name))
				rows = append(rows, measure(t, tool, work, c.name, args, c.want))
			}
		})
	}
	report(t, rows)
}

// makeBase makes the context of the base image.
func makeBase(t *testing.T, dir string) {
	copyContext(t, "debian", dir)
	mirror, err := testenv.DebianMirror()
	if err != nil {
		t.Fatal(err)
	}
	mode := "--mode=root"
	if os.Geteuid() != 0 {
		mode = "--mode=unshare"
	}
	// Only root could unpack device nodes.
	cmd := exec.Command("mmdebstrap", "--variant=minbase", "--skip=output/dev", mode, testenv.DebianSuite(), filepath.Join(dir, "base.tar"), mirror)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, tail(out))
	}
}

// registryArgs are the build arguments that make steps reach the registries
// as the host does.
func registryArgs(t *testing.T) []string {
	var args []string
	for _, name := range []string{"GOPROXY", "GOSUMDB"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--build-arg", name+"="+strings.TrimSpace(string(out)))
	}
	if out, err := exec.Command("npm", "config", "get", "registry").Output(); err == nil {
		args = append(args, "--build-arg", "NPM_CONFIG_REGISTRY="+strings.TrimSpace(string(out)))
	}
	return args
}

func copyContext(t *testing.T, name, dir string) {
	if err := os.CopyFS(dir, os.DirFS(name)); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	data, err := os.ReadFile(caBundle)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// measure builds cold and cached, runs the image and checks what it prints.
func measure(t *testing.T, tool builder, work, name string, args []string, want string) timing {
	dir := filepath.Join(work, name)
	row := timing{Image: name, Tool: tool.name}
	row.Cold = timed(t, tool.build(name, dir, false, args...))
	row.Cached = timed(t, tool.build(name, dir, true, args...))
	if want == "" {
		return row
	}
	out, err := tool.run(name, filepath.Join(work, "run-"+name)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%s: running %s: %v\n%s", tool.name, name, err, tail(out))
	}
	return row
}

func timed(t *testing.T, cmd *exec.Cmd) time.Duration {
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, tail(out))
	}
	return time.Since(start)
}

func tail(out []byte) string {
	if len(out) > 3000 {
		out = out[len(out)-3000:]
	}
	return string(out)
}

func strata(t *testing.T, work string) builder {
	binary := testenv.Strata(t)
	store := filepath.Join(work, "strata-store")
	t.Cleanup(func() { testenv.RemoveStore(store) })
	global := []string{"--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run")}
	command := func(args ...string) *exec.Cmd {
		return exec.CommandContext(context.Background(), binary, append(append([]string(nil), global...), args...)...)
	}
	return builder{
		name: "strata",
		build: func(tag, dir string, cached bool, args ...string) *exec.Cmd {
			return command(append(append([]string{"build", "-t", "localhost/" + tag}, args...), dir)...)
		},
		// The image runs as a step of another build: its entry point, with
		// its user, on its root.
		run: func(tag, dir string) *exec.Cmd {
			run := map[string]string{"c": `["/primes", "100000"]`, "go": `["/service"]`, "node": `["node", "server.js", "--once"]`}[tag]
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprintf("FROM localhost/%s\nRUN %s\n", tag, run)
			if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return command("build", "--no-cache", "-t", "ran", dir)
		},
	}
}

// buildah is the peer, set up as it has to be where rlimits cannot be raised.
func buildah(t *testing.T, work string) (builder, bool) {
	if _, err := exec.LookPath("buildah"); err != nil || os.Geteuid() != 0 {
		t.Logf("buildah is left out: it is not installed, or this is not root")
		return builder{}, false
	}
	store := filepath.Join(work, "buildah-store")
	t.Cleanup(func() { testenv.RemoveStore(store) })
	conf := filepath.Join(work, "containers.conf")
	if err := os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = [\"nofile=1024:20000\",\"nproc=1000:1000\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command("buildah", append([]string{"--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run")}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+conf)
		return cmd
	}
	return builder{
		name: "buildah",
		build: func(tag, dir string, cached bool, args ...string) *exec.Cmd {
			return command(append(append([]string{"bud", "--layers", "--runtime", "runc", "--network", "host", "-t", "localhost/" + tag}, args...), dir)...)
		},
		run: func(tag, _ string) *exec.Cmd {
			run := map[string]string{"c": "/primes 100000", "go": "/service", "node": "node server.js --once"}[tag]
			script := fmt.Sprintf(`c=$(%[1]s from localhost/%[2]s) && %[1]s run --runtime runc --network host $c -- %[3]s; r=$?; %[1]s rm $c >/dev/null; exit $r`,
				strings.Join(command().Args, " "), tag, run)
			cmd := exec.Command("sh", "-c", script)
			cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+conf)
			return cmd
		},
	}, true
}

// report prints the table, and writes it as JSON where STRATA_REAL_JSON says.
func report(t *testing.T, rows []timing) {
	fmt.Printf("%-8s %-10s %10s %10s\n", "IMAGE", "TOOL", "COLD", "CACHED")
	for _, r := range rows {
		fmt.Printf("%-8s %-10s %9.2fs %9.3fs\n", r.Image, r.Tool, r.Cold.Seconds(), r.Cached.Seconds())
	}
	if path := os.Getenv("STRATA_REAL_JSON"); path != "" {
		data, err := json.MarshalIndent(rows, "", "  ")
		if err == nil {
			err = os.WriteFile(path, data, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
