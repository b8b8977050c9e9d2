package tests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/ociread"
	"github.com/stratabuild/strata/tests/testenv"
)

// buildkit builds cases with buildctl and a daemon of its own.
type buildkit struct {
	buildctl, socket, layout string
	base                     digest.Digest
}

// startBuildKit starts the buildkitd that lies beside buildctl.
func startBuildKit(t *testing.T, buildctl string) buildkit {
	t.Helper()
	store := testenv.NewStore(t)
	b := buildkit{buildctl: buildctl, socket: "unix://" + filepath.Join(store.Dir, "sock"), layout: filepath.Join(store.Dir, "base")}
	busybox, err := baseimage.Busybox(t.Context(), store.Dir)
	if err != nil {
		t.Skip(err)
	}
	if b.base, err = baseimage.Write(b.layout, baseimage.Ref, busybox); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	daemon := exec.Command(filepath.Join(filepath.Dir(buildctl), "buildkitd"), "--root", filepath.Join(store.Dir, "buildkit"),
		"--addr", b.socket, "--oci-worker-snapshotter", "overlayfs", "--oci-worker-net", "host", "--containerd-worker=false",
		"--allow-insecure-entitlement", "network.host", "--allow-insecure-entitlement", "security.insecure", "--allow-insecure-entitlement", "device")
	daemon.Stdout, daemon.Stderr = &log, &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
	})
	for range 100 {
		if exec.Command(buildctl, "--addr", b.socket, "debug", "workers").Run() == nil {
			return b
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("buildkitd does not answer: %s", log.String())
	return b
}

// arguments are buildctl's words for a case. Not ok: there is no such option.
func (b buildkit) arguments(c *corpusCase, context string) (args []string, ok bool) {
	image := "oci-layout://base@" + b.base.String()
	dir := filepath.Join(context, "ctx")
	args = []string{"--addr", b.socket, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", "filename=Containerfile",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--oci-layout", "base=" + b.layout,
		"--opt", "context:localhost/busybox=" + image, "--opt", "context:localhost/busybox:latest=" + image}
	for i := 0; i+1 < len(c.args); i += 2 {
		value := strings.ReplaceAll(c.args[i+1], "$CASE", context)
		switch c.args[i] {
		case "--build-arg":
			args = append(args, "--opt", "build-arg:"+value)
		case "--target":
			args = append(args, "--opt", "target="+value)
		case "--secret":
			args = append(args, "--secret", value)
		case "--allow":
			args = append(args, "--allow", value)
		case "--build-context":
			name, from, _ := strings.Cut(value, "=")
			if from == "docker-image://localhost/busybox" {
				args = append(args, "--opt", "context:"+name+"="+image)
			} else {
				args = append(args, "--local", name+"="+from, "--opt", "context:"+name+"=local:"+name)
			}
		default:
			return nil, false
		}
	}
	return args, true
}

func (b buildkit) build(c *corpusCase, context, work string) (img *ociread.Image, stderr string, err error) {
	layout := filepath.Join(work, c.name+".oci")
	args, ok := b.arguments(c, context)
	if !ok {
		return nil, "", errors.New("it has no such option")
	}
	cmd := exec.Command(b.buildctl, append(args, "--output", "type=oci,tar=false,dest="+layout)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return nil, errs.String(), err
	}
	img, err = ociread.Read(layout)
	return img, errs.String(), errors.Join(err, os.RemoveAll(layout))
}

// TestCorpusBuildKit builds the cases with BuildKit and reports where its
// trees and configs differ. It runs only when CORPUS_BUILDCTL names a buildctl
// with a buildkitd beside it.
func TestCorpusBuildKit(t *testing.T) {
	buildctl := os.Getenv("CORPUS_BUILDCTL")
	if buildctl == "" {
		t.Skip("CORPUS_BUILDCTL names no program; see tests/corpus/README.md")
	}
	testenv.Require(t, testenv.Root, testenv.Runtime("runc"))
	b := startBuildKit(t, buildctl)
	comparePeer(t, "BuildKit", func(c *corpusCase) string { return c.buildkit },
		func(c *corpusCase, context, work string) (*ociread.Image, string, error) {
			return b.build(c, context, work)
		})
}

// comparePeer builds all cases with a peer, and tells apart those that are the
// same, those whose difference the case explains, and the others.
func comparePeer(t *testing.T, name string, reason func(*corpusCase) string,
	build func(c *corpusCase, context, work string) (*ociread.Image, string, error)) {
	work := t.TempDir()
	same, explained := 0, 0
	var unexplained, vanished []string
	for _, c := range corpusCases(t) {
		img, stderr, err := build(c, corpusContext(t, c), work)
		list := c.differences(img, stderr, err, false)
		switch why := reason(c); {
		case len(list) == 0 && why == "":
			same++
		case len(list) == 0:
			vanished = append(vanished, c.name+": "+why)
		case why != "":
			explained++
		default:
			unexplained = append(unexplained, c.name+": "+strings.Join(list, "\n"))
		}
	}
	t.Logf("%s: %d cases are the same, %d differ for the reason that the case gives", name, same, explained)
	for _, v := range vanished {
		t.Logf("no difference any more: %s", v)
	}
	for _, u := range unexplained {
		t.Logf("difference: %s", u)
	}
}
