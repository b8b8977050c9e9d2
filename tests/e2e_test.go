package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
//	registry              start a registry, set $REGISTRY (host:port)
//	tree IMAGE            print the image's files, one line a path
//	image IMAGE           print manifest and config, normalised, as JSON
//	lastline FILE         print the last line of a file (a build's ID)
//
// and the conditions [root], [userns], [newuidmap].
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
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\nrootless_storage_path = %q\n",
		filepath.Join(store, "root"), filepath.Join(store, "run"), filepath.Join(store, "root"))
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

func condition(cond string) (bool, error) {
	switch cond {
	case "root":
		return os.Geteuid() == 0, nil
	case "userns":
		return testenv.HasUserNamespaces(), nil
	case "newuidmap":
		return testenv.HasNewuidmap(), nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"registry": cmdRegistry,
	"tree":     cmdTree,
	"image":    cmdImage,
	"lastline": cmdLastLine,
	"base":     cmdBase,
	"mode":     cmdMode,
}

func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: registry")
	}
	r := registrytest.Start()
	ts.Defer(r.Close)
	ts.Setenv("REGISTRY", r.Host())
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
		ts.Fatalf("usage: tree IMAGE [PATH-PREFIX...]")
	}
	var out strings.Builder
	for _, line := range strings.SplitAfter(export(ts, args[0]).Dump(), "\n") {
		keep := len(args) == 1
		for _, prefix := range args[1:] {
			keep = keep || strings.HasPrefix(line, prefix)
		}
		if keep {
			out.WriteString(line)
		}
	}
	fmt.Fprint(ts.Stdout(), out.String())
}

var varying = regexp.MustCompile(`"(created|digest)": *"[^"]*"`)

func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: image IMAGE")
	}
	img := export(ts, args[0])
	delete(img.Config, "rootfs")
	doc := map[string]any{"config": img.Config, "layers": len(img.Layers), "annotations": img.Manifest.Annotations}
	text, err := json.MarshalIndent(doc, "", "  ")
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), varying.ReplaceAllString(string(text), `"$1": "*"`))
}

func cmdLastLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lastline FILE")
	}
	lines := strings.Split(strings.TrimRight(ts.ReadFile(args[0]), "\n"), "\n")
	fmt.Fprintln(ts.Stdout(), lines[len(lines)-1])
}
