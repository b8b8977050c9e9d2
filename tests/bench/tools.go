package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	// command is what is timed, or nil when the row is not for this tool.
	command(r row, p place) (*exec.Cmd, error)
	// script is a row's preparation; nil where the tool needs none.
	script(text string, p place) *exec.Cmd
	// stop ends what prepare has started for the store below dir. Of a tool
	// that has such a daemon, time and disk are measured, but not memory,
	// processor and system calls, which are the daemon's.
	stop(dir string)
}

// alone is a tool without a daemon.
type alone struct{}

func (alone) stop(string) {}

// place says where a run happens.
type place struct {
	dir, context, registry string
	// n is the number of the run, for names that must differ; run counts the
	// runs in this store.
	n, run int
}

func (p place) variables() []string {
	return []string{"CONTEXT=" + p.context, "DIR=" + p.dir, "REGISTRY=" + p.registry, fmt.Sprintf("N=%d", p.n)}
}

func (p place) expand(word string) string {
	return os.Expand(word, func(name string) string {
		for _, v := range p.variables() {
			if key, value, _ := strings.Cut(v, "="); key == name {
				return value
			}
		}
		return "$" + name
	})
}

// findTools keeps the tools that can be used, and says of others why not.
func (s *session) findTools(ctx context.Context) error {
	for _, name := range s.o.tools {
		var t tool
		var err error
		switch name {
		case "strata", userTool:
			path := s.o.strata
			if path == "" {
				if path, err = testenv.Binary(); err != nil {
					return err
				}
			}
			if name == userTool {
				t, err = newUnprivileged(ctx, s, path)
			} else {
				t = builder{tool: "strata", program: path, base: s.base}
			}
		case "podman":
			if err = errors.Join(testenv.Root(), testenv.Runtime("runc")(), testenv.Tool("podman")()); err == nil {
				t, err = newPodman(s)
			}
		case "buildah":
			if err = errors.Join(testenv.Root(), testenv.Runtime("runc")(), testenv.Tool("buildah")()); err == nil {
				t, err = newBuildah(s)
			}
		case "docker":
			if err = testenv.Root(); err == nil {
				t, err = newDocker(ctx, s)
			}
		case "buildctl":
			if err = testenv.Root(); err == nil {
				t, err = newBuildctl(s)
			}
		case "yardstick":
			if err = errors.Join(testenv.Overlay(), testenv.UserNamespaces()); err == nil {
				t, err = newYardstick(ctx, s)
			}
		default:
			return fmt.Errorf("-tools %s: want strata, rootless, buildah, podman, docker, buildctl or yardstick", name)
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

const baseRef = baseimage.Ref

// builder is strata, or another that is called in the same way.
type builder struct {
	alone
	tool, program string
	base          string   // the base image's layout
	global        []string // before each command
	flags         []string // of build
	env           []string
}

// otherBuilder is one of the peers. Where rlimits cannot be raised, runc fails
// on the limits that they ask for by default.
func otherBuilder(s *session, tool string) (builder, error) {
	conf := filepath.Join(s.work, "containers.conf")
	text := "[containers]\ndefault_ulimits = [\"nofile=1024:20000\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"runc\"\n"
	b := builder{tool: tool, program: tool, base: s.base, env: []string{"CONTAINERS_CONF=" + conf, "BUILDAH_RUNTIME=runc"}}
	return b, os.WriteFile(conf, []byte(text), 0o600)
}

func newBuildah(s *session) (builder, error) {
	b, err := otherBuilder(s, "buildah")
	b.flags = []string{"--layers", "--runtime", "runc", "--network", "host"}
	return b, err
}

func newPodman(s *session) (builder, error) {
	b, err := otherBuilder(s, "podman")
	b.global = []string{"--runtime", "runc", "--cgroup-manager", "cgroupfs"}
	b.flags = []string{"--layers", "--network", "host"}
	return b, err
}

func (b builder) name() string { return b.tool }

func (b builder) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.program, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

// words is the program with its global options.
func (b builder) words(dir string) []string {
	return slices.Concat([]string{b.program, "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "overlay"}, b.global)
}

func (b builder) call(dir string, args ...string) *exec.Cmd {
	words := append(b.words(dir), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), b.env...)
	return cmd
}

func (b builder) prepare(ctx context.Context, dir string) error {
	out, err := output(ctx, b.call(dir, "pull", "-q", "oci:"+b.base+":"+baseRef))
	if err != nil {
		return err
	}
	_, err = output(ctx, b.call(dir, "tag", strings.TrimSpace(out), baseName))
	return err
}

func (b builder) command(r row, p place) (*exec.Cmd, error) {
	switch {
	case r.timed != "":
		return b.script(r.timed, p), nil
	case r.args != nil && b.tool == "podman":
		return nil, nil // its commands mean containers of another kind
	case r.args != nil:
		args := make([]string, len(r.args))
		for i, a := range r.args {
			args[i] = p.expand(a)
		}
		if args[0] == "build" {
			args = slices.Concat(args[:1], b.flags, args[1:])
		}
		return b.call(p.dir, args...), nil
	}
	args := append([]string{"build"}, b.flags...)
	if !r.cached {
		args = append(args, "--no-cache")
	}
	args = append(args, "--jobs", "4", "-t", "localhost/bench", "-f", filepath.Join(p.context, "Containerfile"), p.context)
	return b.call(p.dir, args...), nil
}

// script runs text with B, which calls the builder, and LAYERS, what build
// needs besides.
func (b builder) script(text string, p place) *exec.Cmd {
	call := ""
	for _, w := range b.words(p.dir) {
		call += "'" + w + "' "
	}
	cmd := exec.Command("sh", "-ec", "B() { "+call+"\"$@\"; }\n"+text)
	cmd.Env = slices.Concat(os.Environ(), b.env, p.variables(), []string{"LAYERS=" + strings.Join(b.flags, " ")})
	return cmd
}

// yardstick is a script for each row.
type yardstick struct {
	alone
	files string // the base image's files
}

func newYardstick(ctx context.Context, s *session) (yardstick, error) {
	files, err := s.baseFiles(ctx)
	return yardstick{files: files}, err
}

// baseFiles unpacks the base image by making it again as files.
func (s *session) baseFiles(ctx context.Context) (string, error) {
	files := filepath.Join(s.work, "base-files")
	if _, err := os.Stat(files); err == nil {
		return files, nil
	}
	for _, d := range []string{"bin", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(files, d), 0o755); err != nil {
			return "", err
		}
	}
	_, err := output(ctx, exec.Command("cp", s.busybox, filepath.Join(files, "bin", "busybox")))
	// The links need not be complete: the rows use these only.
	for _, link := range []string{"sh", "echo", "mkdir", "rm", "sleep"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(files, "bin", link)))
	}
	return files, err
}

func (y yardstick) name() string { return "yardstick" }
func (y yardstick) version(context.Context) string {
	return "sh, unshare, overlay, chroot, cp, tar, sha256sum"
}
func (y yardstick) prepare(context.Context, string) error { return nil }

func (y yardstick) script(string, place) *exec.Cmd { return nil }

func (y yardstick) command(r row, p place) (*exec.Cmd, error) {
	if r.script == "" {
		return nil, nil
	}
	scratch := filepath.Join(p.dir, fmt.Sprintf("run%d", p.run))
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", r.script)
	cmd.Dir = scratch
	cmd.Env = append(os.Environ(), "BASE="+y.files, "CONTEXT="+p.context, "UNSHARE=", "OVERLAY=")
	if os.Geteuid() != 0 {
		cmd.Env = append(cmd.Env, "UNSHARE=--user --map-root-user", "OVERLAY=,userxattr")
	}
	return cmd, nil
}

// output runs an untimed command.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	c := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	c.Env, c.Dir, c.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
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
