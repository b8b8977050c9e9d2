//go:build real

package real

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/testenv"
)

// ownersUser has an id that no range of subordinate ids is for.
const ownersUser = 54324

// TestOwners: a user with one id installs a package that makes a user of its
// own and gives files to it. Names, modes and owners in the image are those of
// the image that root builds.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to compare with and to become another user")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv")
	}
	work, err := os.MkdirTemp("", "strata-owners-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testenv.RemoveStore(work); err != nil {
			t.Error(err)
		}
	})
	makeBase(t, filepath.Join(work, "debian"))
	step := filepath.Join(work, "redis")
	must(t, os.Mkdir(step, 0o755))
	must(t, os.WriteFile(filepath.Join(step, "Containerfile"), []byte(`FROM localhost/debian
RUN apt-get update && apt-get install -y --no-install-recommends redis-server
RUN useradd --create-home --shell /bin/bash app && su app -c true && install -d -o app -g redis -m 2750 /srv/app
`), 0o644))
	must(t, os.Chmod(work, 0o755))
	root := listImage(t, work, "root", 0, step)
	single := listImage(t, work, "single", ownersUser, step)
	if root["etc/redis/redis.conf"] == "" || strings.HasSuffix(root["var/lib/redis/"], " 0:0") || root["srv/app/"] == "" {
		t.Fatalf("root's image: %q, %q, %q", root["etc/redis/redis.conf"], root["var/lib/redis/"], root["srv/app/"])
	}
	for _, name := range slices.Sorted(maps.Keys(root)) {
		if single[name] != root[name] {
			t.Errorf("%s is %q, root's is %q", name, single[name], root[name])
		}
	}
	for name := range single {
		if _, ok := root[name]; !ok {
			t.Errorf("%s is not in root's image", name)
		}
	}
}

// listImage builds as the user, and lists mode and owner of all that is in the
// image's layers above the base, by name.
func listImage(t *testing.T, work, name string, uid int, step string) map[string]string {
	t.Helper()
	home := filepath.Join(work, name)
	must(t, os.MkdirAll(filepath.Join(home, "tmp"), 0o755))
	must(t, os.Chown(home, uid, uid))
	must(t, os.Chown(filepath.Join(home, "tmp"), uid, uid))
	id := fmt.Sprint(uid)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("setpriv", append([]string{"--reuid", id, "--regid", id, "--clear-groups", testenv.Strata(t),
			"--root", filepath.Join(home, "store"), "--runroot", filepath.Join(home, "run")}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + filepath.Join(home, "tmp")}
		for _, v := range os.Environ() {
			if n, _, _ := strings.Cut(v, "="); strings.HasSuffix(strings.ToLower(n), "_proxy") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: strata %s: %v\n%s", name, strings.Join(args, " "), err, tail(out))
		} else if strings.Contains(string(out), "owners cannot be remembered") {
			t.Fatalf("%s: %s", name, tail(out))
		}
	}
	run("build", "-t", "localhost/debian", filepath.Join(work, "debian"))
	run("build", "-t", "localhost/redis", step)
	archive := filepath.Join(home, "image.tar")
	run("push", "-q", "localhost/redis", "docker-archive:"+archive)
	list := map[string]string{}
	for _, layer := range layersOf(t, archive)[1:] {
		members(t, archive, layer, list)
	}
	return list
}

func layersOf(t *testing.T, archive string) []string {
	t.Helper()
	var manifest []struct{ Layers []string }
	entry(t, archive, "manifest.json", func(r io.Reader) { must(t, json.NewDecoder(r).Decode(&manifest)) })
	if len(manifest) != 1 || len(manifest[0].Layers) < 3 {
		t.Fatalf("%s: %v", archive, manifest)
	}
	return manifest[0].Layers
}

// members adds a layer's members to list. What differs from build to build is
// left out: locks, logs and backups that are there or not.
func members(t *testing.T, archive, layer string, list map[string]string) {
	t.Helper()
	entry(t, archive, layer, func(r io.Reader) {
		in := tar.NewReader(r)
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			must(t, err)
			list[h.Name] = fmt.Sprintf("%c %o %d:%d", h.Typeflag, h.Mode, h.Uid, h.Gid)
		}
	})
}

func entry(t *testing.T, archive, name string, read func(io.Reader)) {
	t.Helper()
	f, err := os.Open(archive)
	must(t, err)
	defer f.Close()
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if err != nil {
			t.Fatalf("%s in %s: %v", name, archive, err)
		}
		if path.Clean(h.Name) != name {
			continue
		}
		if h.Typeflag == tar.TypeSymlink {
			entry(t, archive, path.Join(path.Dir(name), h.Linkname), read)
			return
		}
		read(in)
		return
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
