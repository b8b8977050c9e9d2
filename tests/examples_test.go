package tests

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/ociread"
	"github.com/stratabuild/strata/tests/testenv"
)

// example is a script that makes the image example.
type example struct {
	name   string
	script string // a path
	// before and after are the script's arguments around the image's name.
	before, after []string
	needs         []testenv.Condition
	env           []string
	// run is executed in the image where it is set, and has to print want.
	run  []string
	want string
}

// moreExamples are those that need the network; nil without the build tag
// real.
var moreExamples func(t *testing.T, scripts string) []example

// TestExampleScripts runs docs/examples/scripts, and one script that sets all
// that config can, by strata script; it compares the images with those that
// buildah makes where that is here and works. What differs on purpose is
// listed in docs/examples/scripts/README.md.
func TestExampleScripts(t *testing.T) {
	strata := testenv.Strata(t)
	scripts, err := filepath.Abs("../docs/examples/scripts")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	settings := filepath.Join(work, "settings.sh")
	if err := os.WriteFile(settings, []byte(settingsScript), 0o644); err != nil {
		t.Fatal(err)
	}
	all := []example{
		{name: "busybox", script: filepath.Join(scripts, "busybox.sh"), needs: []testenv.Condition{installed("busybox")},
			run: []string{"echo", "hello"}, want: "hello"},
		{name: "mount", script: filepath.Join(scripts, "mount.sh"), needs: []testenv.Condition{installed("dpkg-deb")},
			before: []string{examplePackage(t, work)}},
		{name: "settings", script: settings},
	}
	if moreExamples != nil {
		all = append(all, moreExamples(t, scripts)...)
	}
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			testenv.Require(t, e.needs...)
			env := append(exampleStore(t, strata), e.env...)
			args := append(append(append([]string{e.script}, e.before...), "example"), e.after...)
			exampleRun(t, env, strata, append([]string{"script"}, args...)...)
			if list := exampleRun(t, env, strata, "containers", "-q"); list != "" {
				t.Errorf("containers are left: %s", list)
			}
			ours := exampleRead(t, env, strata)
			if e.run != nil {
				c := exampleRun(t, env, strata, "from", "localhost/example")
				if got := exampleRun(t, env, strata, append([]string{"run", c, "--"}, e.run...)...); got != e.want {
					t.Errorf("%q prints %q, want %q", e.run, got, e.want)
				}
				exampleRun(t, env, strata, "rm", c)
			}
			compareWithBuildah(t, append(exampleStore(t, strata), e.env...), args, ours)
		})
	}
}

// installed is testenv.Tool for programs that need not know --version.
func installed(name string) testenv.Condition {
	return func() error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("needs %s, which is not installed", name)
		}
		return nil
	}
}

// compareWithBuildah has buildah run the script, and compares.
func compareWithBuildah(t *testing.T, env, args []string, ours *ociread.Image) {
	buildah, err := exec.LookPath("buildah")
	if err != nil || os.Getuid() != 0 {
		return // for others it would need unshare
	}
	env = append(env, "BUILDER=buildah", "BUILDAH_ISOLATION=chroot")
	cmd := exec.Command("sh", args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("buildah does not work here: %v: %s", err, out)
	}
	theirs := exampleRead(t, env, buildah)
	if diff := treeDiff(ours, theirs); diff != "" {
		t.Errorf("files differ (- strata, + buildah):\n%s", diff)
	}
	alignConfigs(ours, theirs)
	if a, b := configText(t, ours), configText(t, theirs); a != b {
		t.Errorf("configs differ.\nstrata:\n%s\nbuildah:\n%s", a, b)
	}
}

// runLeaves are what buildah's run makes in an empty root and leaves there.
var runLeaves = []string{"/dev", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/run", "/run/.containerenv", "/sys"}

// treeDiff compares types, modes, owners, link targets, attributes and
// contents; not times.
func treeDiff(ours, theirs *ociread.Image) string {
	line := func(img *ociread.Image, name string) string {
		e, ok := img.Tree[name]
		if !ok {
			return ""
		}
		return fmt.Sprintf("%s %x\n", e, sha256.Sum256(e.Data))
	}
	var diff strings.Builder
	for _, name := range slices.Sorted(maps.Keys(ours.Tree)) {
		if a, b := line(ours, name), line(theirs, name); a != b {
			diff.WriteString("- " + a)
			if b != "" {
				diff.WriteString("+ " + b)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs.Tree)) {
		if _, ok := ours.Tree[name]; !ok && !slices.Contains(runLeaves, name) {
			diff.WriteString("+ " + line(theirs, name))
		}
	}
	return diff.String()
}

// examplePackage makes a small Debian package; "" without dpkg-deb.
func examplePackage(t *testing.T, dir string) string {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return ""
	}
	root := filepath.Join(dir, "package")
	for name, text := range map[string]string{
		"DEBIAN/control": "Package: example\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: example\n",
		"usr/share/e/f":  "f\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "example.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	return deb
}

func exampleStore(t *testing.T, strata string) []string {
	dir := t.TempDir()
	conf := filepath.Join(dir, "storage.conf")
	driver := "overlay"
	if testenv.Overlay() != nil {
		driver = "vfs" // as strata chooses itself
	}
	text := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", driver, filepath.Join(dir, "root"), filepath.Join(dir, "run"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { testenv.RemoveStore(dir) })
	return append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf, "HOME="+dir, "XDG_RUNTIME_DIR="+dir,
		"PATH="+filepath.Dir(strata)+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func exampleRun(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(program), strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// exampleRead reads the image that a script has made.
func exampleRead(t *testing.T, env []string, program string) *ociread.Image {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	exampleRun(t, env, program, "push", "-q", "example", "oci:"+layout)
	img, err := ociread.Read(layout)
	if err != nil {
		t.Fatal(err)
	}
	return img
}
