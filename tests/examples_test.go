package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/ociread"
	"github.com/stratabuild/strata/tests/testenv"
)

// TestExampleScripts runs docs/examples/scripts by strata script, and compares
// the files with those that buildah makes where it is here and works.
func TestExampleScripts(t *testing.T) {
	strata := testenv.Strata(t)
	scripts, err := filepath.Abs("../docs/examples/scripts")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	pack := examplePackage(t, work)
	for _, tc := range []struct {
		script, program string
		args            []string
	}{
		{"busybox.sh", "busybox", nil},
		{"mount.sh", "dpkg-deb", []string{pack}},
	} {
		t.Run(tc.script, func(t *testing.T) {
			if _, err := exec.LookPath(tc.program); err != nil {
				t.Skipf("needs %s", tc.program)
			}
			env := exampleStore(t, strata)
			script := filepath.Join(scripts, tc.script)
			args := append(append([]string{"script", script}, tc.args...), "example")
			exampleRun(t, env, strata, args...)
			ours := exampleRead(t, env, strata)
			if list := exampleRun(t, env, strata, "containers", "-q"); list != "" {
				t.Errorf("containers are left: %s", list)
			}
			buildah, err := exec.LookPath("buildah")
			if err != nil || os.Getuid() != 0 {
				return // for others it would need unshare
			}
			other := append(exampleStore(t, strata), "BUILDER=buildah", "BUILDAH_ISOLATION=chroot")
			cmd := exec.Command("sh", append(append([]string{script}, tc.args...), "example")...)
			cmd.Env = other
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("buildah does not work here: %v: %s", err, out)
			}
			theirs := exampleRead(t, other, buildah)
			if theirs = withoutMountPoints(theirs); ours != theirs {
				t.Errorf("files differ.\nstrata:\n%s\nbuildah:\n%s", ours, theirs)
			}
		})
	}
}

// withoutMountPoints leaves out what buildah's run makes in an empty root and
// leaves there.
func withoutMountPoints(dump string) string {
	var keep []string
	for line := range strings.SplitSeq(dump, "\n") {
		switch name, _, _ := strings.Cut(line, " "); name {
		case "/dev", "/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/run", "/run/.containerenv", "/sys":
		default:
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
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
	text := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "run"))
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

// exampleRead lists the files of the image that a script has made.
func exampleRead(t *testing.T, env []string, program string) string {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	exampleRun(t, env, program, "push", "-q", "example", "oci:"+layout)
	img, err := ociread.Read(layout)
	if err != nil {
		t.Fatal(err)
	}
	return img.Dump()
}
