package transport_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stratabuild/strata/builder/image/imagetest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// TestDockerRegistry uses the reference implementation of a registry.
func TestDockerRegistry(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended with the context
		cmd.Wait()         //nolint:errcheck // killed
	})
	for range 200 {
		resp, err := http.Get("http://" + host + "/v2/") //nolint:noctx // bounded by the loop
		if err == nil {
			resp.Body.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	from, to := imagetest.Store(t), imagetest.Store(t)
	for _, f := range []define.Format{define.FormatOCI, define.FormatDocker} {
		img := imagetest.Put(t, from, imagetest.Spec{Format: f, Layers: append([]imagetest.Files{{"f": string(f)}}, bigLayer...)})
		c, _ := client(t, from, plainHTTP)
		name := host + "/app:" + string(f)
		d, err := c.Push(t.Context(), img.ID, name, transport.PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c2, _ := client(t, to, plainHTTP)
		for _, n := range []string{name, host + "/app@" + d.String()} {
			if l, err := c2.Pull(t.Context(), n, define.HostPlatform(), define.PullAlways); err != nil || l.ID != img.ID {
				t.Errorf("%s: %+v %v", n, l, err)
			}
		}
	}
}

// TestPodmanReads lets podman work with the images and lists recorded here.
func TestPodmanReads(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("podman is not installed")
	}
	st := imagetest.Store(t)
	var ids []define.ImageID
	for _, arch := range []string{"amd64", "arm64"} {
		ids = append(ids, imagetest.Put(t, st, imagetest.Spec{
			Names: []string{"localhost/" + arch + ":latest"}, Platform: define.Platform{OS: "linux", Architecture: arch}, Layers: twoLayers,
		}).ID)
	}
	c, _ := client(t, st, transport.Options{})
	if _, err := c.PushList(t.Context(), ids, nil, "containers-storage:list", transport.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		args = append([]string{"--root", st.Raw().GraphRoot(), "--runroot", st.Raw().RunRoot(), "--storage-driver", "vfs"}, args...)
		out, err := exec.CommandContext(t.Context(), podman, args...).CombinedOutput()
		if err != nil {
			t.Errorf("podman %v: %v\n%s", args[6:], err, out)
		}
		return string(out)
	}
	run("image", "inspect", "localhost/arm64")
	run("image", "tree", "localhost/amd64")
	run("manifest", "inspect", "localhost/list")
	run("manifest", "push", "--all", "localhost/list", "dir:"+t.TempDir())
	run("tag", "localhost/amd64", "localhost/other:v1")
	if l, err := c.FindLocal("other:v1", define.Platform{}); err != nil || l.ID != ids[0] {
		t.Errorf("what podman tagged: %+v %v", l, err)
	}
	run("manifest", "rm", "localhost/list")
}
