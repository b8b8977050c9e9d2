package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stratabuild/strata/builder/transport/registrytest"
	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/ociread"
	"github.com/stratabuild/strata/tests/testenv"
)

// TestScripts runs every script below scripts/, one behaviour each, against
// the real binary and a store of the script's own. Beside testscript's
// commands there are:
//
//	registry [-auth U:P]  start a registry, set $REGISTRY (host:port); -tls: HTTPS with certs/ca.crt;
//	                      -fail N: the first N requests for manifests end with status 503
//	tree IMAGE [PATH...]  print the image's files (at and below the paths), one line each
//	toplayer IMAGE        print the members of the image's last layer
//	image IMAGE           print manifest and config, normalised, as JSON
//	base                  put the base image localhost/busybox into the store
//	clean                 check that no mount, workspace or temporary file is left
//	mode FILE OCTAL       check a file's permission bits
//
// and the conditions [root], [userns], [mounts], [overlay], [newuidmap], [users], [runc], [crun], [binfmt], [limits],
// [apparmor], [scope], [idmap].
func TestScripts(t *testing.T) {
	binary := testenv.Strata(t)
	base := baseimage.Layout(t)
	dirs, err := filepath.Glob("scripts/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 dir,
				Setup:               func(e *testscript.Env) error { return setup(e, binary, base) },
				Condition:           condition,
				Cmds:                commands,
				UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
				RequireExplicitExec: true,
			})
		})
	}
}

// setup gives the script a store, a home and the base image localhost/busybox.
func setup(e *testscript.Env, binary, base string) error {
	store := filepath.Join(e.WorkDir, ".store")
	home := filepath.Join(e.WorkDir, ".home")
	for _, d := range []string{store, home} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	conf := filepath.Join(store, "storage.conf")
	driver := "overlay"
	if testenv.Overlay() != nil {
		driver = "vfs" // as strata chooses itself
	}
	text := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", driver,
		filepath.Join(store, "root"), filepath.Join(store, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	e.Setenv("CONTAINERS_STORAGE_CONF", conf)
	e.Setenv("HOME", home)
	e.Setenv("XDG_RUNTIME_DIR", filepath.Join(store, "xdg"))
	e.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	e.Setenv("BASE", base)
	if err := os.MkdirAll(filepath.Join(store, "xdg"), 0o700); err != nil {
		return err
	}
	e.Defer(func() { testenv.RemoveStore(store) })
	return nil
}

// condition answers [root], [userns], [overlay], [newuidmap], [users], [runc] and [crun]
// by trying; programs are testscript's own [exec:NAME].
func condition(name string) (bool, error) {
	switch name {
	case "root", "userns", "mounts", "overlay", "newuidmap", "users", "runc", "crun", "binfmt", "limits", "apparmor", "scope", "idmap":
		return testenv.Named(name)() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"registry":  cmdRegistry,
	"serve":     cmdServe,
	"gitdaemon": cmdGitDaemon,
	"tree":      cmdTree,
	"image":     cmdImage,
	"toplayer":  cmdTopLayer,
	"base":      cmdBase,
	"mode":      cmdMode,
	"clean":     cmdClean,
}

func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	const usage = "usage: registry [-auth USER:PASSWORD] [-tls] [-fail N]"
	var o registrytest.Options
	fails := 0
	for len(args) > 0 {
		switch {
		case args[0] == "-tls":
			o.TLS, args = true, args[1:]
			continue
		case len(args) < 2 || neg:
			ts.Fatalf(usage)
		case args[0] == "-auth":
			o.Username, o.Password, _ = strings.Cut(args[1], ":")
		case args[0] == "-fail":
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			fails = n
		default:
			ts.Fatalf(usage)
		}
		args = args[2:]
	}
	r, err := registrytest.New(o)
	ts.Check(err)
	ts.Defer(func() { r.Close() })
	ts.Setenv("REGISTRY", r.Host())
	if fails > 0 {
		r.Inject(registrytest.Fault{Method: "GET", Path: "/manifests/", Times: fails, Status: 503})
	}
	if o.TLS {
		dir := ts.MkAbs("certs")
		ts.Check(os.MkdirAll(dir, 0o700))
		ts.Check(r.WriteCA(dir))
	}
}

// cmdBase pulls the base image into the script's store.
func cmdBase(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("strata", "pull", "-q", "oci:"+ts.Getenv("BASE")+":busybox"))
	ts.Check(ts.Exec("strata", "tag", strings.TrimSpace(ts.ReadFile("stdout")), "localhost/busybox:latest"))
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mode FILE OCTAL")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); (got == args[1]) == neg {
		ts.Fatalf("%s has mode %s", args[0], got)
	}
}

// cmdClean checks what a command must not leave, however it ended: mounts
// (the store's own bind mount of its home aside), the pin layers of builds,
// and files in the temporary directory.
func cmdClean(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: clean")
	}
	work := ts.Getenv("WORK")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], work+"/") && !strings.HasSuffix(fields[4], "/.store/root/overlay") {
			ts.Fatalf("a mount is left: %s", line)
		}
	}
	layers, err := os.ReadFile(filepath.Join(work, ".store/root/overlay-layers/layers.json"))
	if err != nil && !os.IsNotExist(err) { // nothing was ever stored
		ts.Check(err)
	}
	if strings.Contains(string(layers), "strata-work") {
		ts.Fatalf("a workspace is left in the store")
	}
	left, err := os.ReadDir(ts.Getenv("TMPDIR"))
	ts.Check(err)
	for _, e := range left {
		ts.Fatalf("a temporary file is left: %s", e.Name())
	}
}

func export(ts *testscript.TestScript, name string) *ociread.Image {
	dir, err := os.MkdirTemp(ts.Getenv("WORK"), ".layout-")
	ts.Check(err)
	ts.Check(ts.Exec("strata", "push", "-q", name, "oci:"+dir))
	img, err := ociread.Read(dir)
	ts.Check(err)
	return img
}

func cmdTree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: tree IMAGE [PATH...]")
	}
	var out strings.Builder
	for _, line := range strings.SplitAfter(export(ts, args[0]).Dump(), "\n") {
		keep := len(args) == 1
		for _, prefix := range args[1:] {
			path, _, _ := strings.Cut(line, " ")
			keep = keep || strings.HasPrefix(path+"/", strings.TrimSuffix(prefix, "/")+"/")
		}
		if keep {
			out.WriteString(line)
		}
	}
	fmt.Fprint(ts.Stdout(), out.String())
}

func cmdTopLayer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: toplayer IMAGE")
	}
	img := export(ts, args[0])
	for _, e := range img.Layers[len(img.Layers)-1] {
		fmt.Fprintln(ts.Stdout(), e.String())
	}
}

var varying = regexp.MustCompile(`"(created|digest)": *"[^"]*"`)

func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: image IMAGE")
	}
	img := export(ts, args[0])
	delete(img.Config, "rootfs")
	doc := map[string]any{"config": img.Config, "layers": len(img.Layers), "annotations": img.Manifest.Annotations}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	ts.Check(enc.Encode(doc))
	fmt.Fprint(ts.Stdout(), varying.ReplaceAllString(text.String(), `"$1": "*"`))
}
