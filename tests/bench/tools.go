package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/testenv"
)

// tool builds a context with a store of its own.
type tool interface {
	name() string
	// version is one line.
	version(ctx context.Context) string
	// prepare makes the store below dir with the base image in it.
	prepare(ctx context.Context, dir string) error
	// build is the command that is timed, or nil when the row is not for
	// this tool. run numbers the calls for one store.
	build(r row, dir, contextDir string, run int) (*exec.Cmd, error)
}

// findTools keeps the tools that can be used, and says of others why not.
func (s *session) findTools(ctx context.Context) error {
	for _, name := range s.o.tools {
		var t tool
		var err error
		switch name {
		case "strata":
			path := s.o.strata
			if path == "" {
				if path, err = testenv.Binary(); err != nil {
					return err
				}
			}
			t = builder{tool: "strata", program: path, base: s.base}
		case "buildah":
			if err = errors.Join(testenv.Root(), testenv.Runtime("runc")(), testenv.Tool("buildah")()); err == nil {
				t, err = newBuildah(s)
			}
		case "yardstick":
			if err = errors.Join(testenv.Overlay(), testenv.UserNamespaces()); err == nil {
				t, err = newYardstick(ctx, s)
			}
		default:
			return fmt.Errorf("-tools %s: want strata, buildah or yardstick", name)
		}
		if err != nil {
			s.say("%s is left out: %v", name, err)
			continue
		}
		s.tools = append(s.tools, t)
	}
	if len(s.tools) == 0 {
		return errors.New("no tool to time")
	}
	return nil
}

// builder is strata, or buildah, which is called in the same way.
type builder struct {
	tool, program string
	base          string // the base image's layout
	flags         []string
	env           []string
}

func newBuildah(s *session) (builder, error) {
	// Where rlimits cannot be raised, runc fails on the limits that buildah
	// asks for by default.
	conf := filepath.Join(s.work, "containers.conf")
	text := "[containers]\ndefault_ulimits = [\"nofile=1024:20000\", \"nproc=1000:1000\"]\n"
	return builder{
		tool: "buildah", program: "buildah", base: s.base,
		flags: []string{"--layers", "--runtime", "runc", "--network", "host"},
		env:   []string{"CONTAINERS_CONF=" + conf},
	}, os.WriteFile(conf, []byte(text), 0o600)
}

func (b builder) name() string { return b.tool }

func (b builder) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.program, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func (b builder) command(dir string, args ...string) *exec.Cmd {
	global := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay"}
	cmd := exec.Command(b.program, append(global, args...)...)
	cmd.Env = append(os.Environ(), b.env...)
	return cmd
}

func (b builder) prepare(ctx context.Context, dir string) error {
	out, err := output(ctx, b.command(dir, "pull", "-q", "oci:"+b.base+":"+baseimage.Ref))
	if err != nil {
		return err
	}
	_, err = output(ctx, b.command(dir, "tag", strings.TrimSpace(out), baseName))
	return err
}

func (b builder) build(r row, dir, contextDir string, _ int) (*exec.Cmd, error) {
	args := append([]string{"build"}, b.flags...)
	if !r.cached {
		args = append(args, "--no-cache")
	}
	args = append(args, "--jobs", "4", "-t", "localhost/bench", "-f", filepath.Join(contextDir, "Containerfile"), contextDir)
	return b.command(dir, args...), nil
}

// yardstick is a script for each row.
type yardstick struct {
	files string // the base image's files
}

// newYardstick unpacks the base image by making it again as files.
func newYardstick(ctx context.Context, s *session) (yardstick, error) {
	y := yardstick{files: filepath.Join(s.work, "yardstick-base")}
	for _, d := range []string{"bin", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(y.files, d), 0o755); err != nil {
			return y, err
		}
	}
	// The links need not be complete: the scripts use the shell only.
	_, err := output(ctx, exec.Command("cp", s.busybox, filepath.Join(y.files, "bin", "busybox")))
	for _, link := range []string{"sh", "echo", "sleep"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(y.files, "bin", link)))
	}
	return y, err
}

func (y yardstick) name() string { return "yardstick" }
func (y yardstick) version(context.Context) string {
	return "sh, unshare, overlay, chroot, cp, tar, sha256sum"
}
func (y yardstick) prepare(context.Context, string) error { return nil }

func (y yardstick) build(r row, dir, contextDir string, run int) (*exec.Cmd, error) {
	if r.script == "" {
		return nil, nil
	}
	scratch := filepath.Join(dir, fmt.Sprintf("run%d", run))
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", r.script)
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), "BASE="+y.files, "CONTEXT="+contextDir, "UNSHARE=", "OVERLAY=")
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "UNSHARE=--user --map-root-user", "OVERLAY=,userxattr")
	}
	return cmd, nil
}

// output runs an untimed command.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	c := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(stderr.String()))
	}
	return string(out), nil
}

// tail is the end of a long text.
func tail(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 1000 {
		s = "..." + s[len(s)-1000:]
	}
	return s
}
