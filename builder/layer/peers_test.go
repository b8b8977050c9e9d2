package layer

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/storage"
)

// record makes an image of a committed chain.
func (f *fixture) record(name string, top *Layer) {
	f.t.Helper()
	var config v1.Image
	config.OS, config.Architecture = "linux", "amd64"
	config.RootFS.Type = "layers"
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	id := f.wait(top).ID
	for l := top; l != nil; l = l.Parent() {
		i := f.wait(l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, i.DiffID)
		manifest.Layers = append(manifest.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: i.DiffID, Size: i.Size})
	}
	slices.Reverse(config.RootFS.DiffIDs)
	slices.Reverse(manifest.Layers)
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			f.t.Fatal(err)
		}
		return b
	}
	configBytes := encode(config)
	manifest.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(configBytes), Size: int64(len(configBytes))}
	manifestBytes := encode(manifest)
	d := digest.FromBytes(manifestBytes)
	_, err := f.st.Raw().CreateImage(manifest.Config.Digest.Encoded(), []string{name}, string(id), "{}", &storage.ImageOptions{
		Digest: d,
		BigData: []storage.ImageBigDataOption{
			{Key: manifest.Config.Digest.String(), Data: configBytes, Digest: manifest.Config.Digest},
			{Key: storage.ImageDigestBigDataKey, Data: manifestBytes, Digest: d},
			{Key: storage.ImageDigestManifestBigDataNamePrefix + "-" + d.String(), Data: manifestBytes, Digest: d},
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// peer runs another tool, with whatever it mounts in a namespace of its own.
func (f *fixture) peer(dir string, args ...string) string {
	f.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "CONTAINERS_STORAGE_CONF="+filepath.Join(dir, "storage.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPeersReadTheLayers(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo: ", err)
	}
	f := newFixture(t, "overlay")
	one := f.step(nil, BeginOptions{}, FreezeOptions{}, func(root *os.File) { makeTree(t, in(root, ".")) })
	two := f.step(one, BeginOptions{}, FreezeOptions{}, func(root *os.File) {
		remove(t, root, "dir")
		write(t, root, "dir/new", "opaque")
		remove(t, root, "a")
		remove(t, root, "many/a")
		if err := os.Chmod(in(root, "bin/exe"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	f.record("localhost/peers:latest", two)
	f.check()

	dir := t.TempDir()
	raw := f.st.Raw()
	conf := "[storage]\ndriver = \"overlay\"\ngraphroot = \"" + raw.GraphRoot() + "\"\nrunroot = \"" + raw.RunRoot() + "\"\n"
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	f.peer(dir, "skopeo", "--insecure-policy", "copy", "--preserve-digests", "-q", "containers-storage:localhost/peers:latest", "dir:"+dir+"/out")
	blobs, err := os.ReadDir(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, b := range blobs {
		content, err := os.ReadFile(filepath.Join(dir, "out", b.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Name()) == 64 && digest.FromBytes(content).Encoded() != b.Name() {
			t.Errorf("blob %s has another digest", b.Name())
		}
		for l := two; l != nil; l = l.Parent() {
			if f.wait(l).DiffID.Encoded() == b.Name() {
				found++
			}
		}
	}
	if found != 2 {
		t.Errorf("%d of 2 layers were copied", found)
	}

	// Pulled into an empty store, the image has the same layers and the same
	// tree.
	fresh := newFixture(t, "overlay")
	conf = strings.ReplaceAll(strings.ReplaceAll(conf, raw.GraphRoot(), fresh.st.Raw().GraphRoot()), raw.RunRoot(), fresh.st.Raw().RunRoot())
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh.peer(dir, "skopeo", "--insecure-policy", "copy", "-q", "dir:"+dir+"/out", "containers-storage:localhost/peers:latest")
	pulled, err := fresh.sp.Open(t.Context(), f.wait(two).ID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "pulled", fresh.tree(pulled), f.tree(two))

	if _, err := exec.LookPath("podman"); err != nil {
		return
	}
	podman := []string{"podman", "--root", raw.GraphRoot(), "--runroot", raw.RunRoot(), "--storage-driver", "overlay"}
	if out := f.peer(dir, append(podman, "images", "--noheading")...); !strings.Contains(out, "localhost/peers") {
		t.Errorf("podman images: %s", out)
	}
	sum := "cd $(" + strings.Join(podman, " ") + " image mount localhost/peers) && find . | wc -l && cat dir/new && stat -c %a bin/exe; cd /; " + strings.Join(podman, " ") + " image umount -a"
	if out := f.peer(dir, "sh", "-c", sum); !strings.Contains(out, "opaque700") {
		t.Errorf("podman image mount: %s", out)
	}

	// A prune by podman leaves what a build is using.
	build := openFixture(t, f.st)
	base, err := build.sp.Open(t.Context(), f.wait(two).ID)
	if err != nil {
		t.Fatal(err)
	}
	w, err := build.sp.Begin(t.Context(), base, BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.Root(), "during", "a prune")
	f.peer(dir, append(podman, "system", "prune", "-af")...)
	f.peer(dir, append(podman, "rmi", "-af")...)
	l, err := w.Freeze(t.Context(), FreezeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.wait(l)
	f.check()
}
