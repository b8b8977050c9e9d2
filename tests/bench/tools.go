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
	"syscall"

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
	// command is what is timed; the error is absent when the row is not for
	// this tool. A row's parallel does not matter to it.
	command(r row, p place) (*exec.Cmd, error)
	// script is a row's preparation; nil where the tool needs none.
	script(text string, p place) *exec.Cmd
	// stop ends what prepare has started for the store below dir. Of a tool
	// that has such a daemon, time, memory and disk are measured, but not
	// processor and system calls, which are the daemon's.
	stop(dir string)
	// daemon is that process, or 0.
	daemon(dir string) int
	// own gives the tool what root wrote into the store below dir.
	own(dir string) error
}

// absent is why a tool has no time in a row.
type absent string

func (a absent) Error() string { return string(a) }

// alone is a tool without a daemon.
type alone struct{}

func (alone) stop(string) {}

func (alone) daemon(string) int { return 0 }

func (alone) own(string) error { return nil }

// place says where a run happens.
type place struct {
	dir, context, image, registry string
	// n is the number of the run, for names that must differ; run counts the
	// runs in this store.
	n, run int
	// copy is the number of one of several commands that run at once.
	copy string
}

func (p place) variables() []string {
	return []string{"CONTEXT=" + p.context, "IMAGE=" + p.image, "DIR=" + p.dir, "REGISTRY=" + p.registry, fmt.Sprintf("N=%d", p.n)}
}

// built is the name that a build gives.
func (p place) built() string { return "localhost/bench" + p.copy }

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

// installed copies a program, as an installation does. Go's linker writes
// through a mapping, which leaves the file in single pages of the cache until
// it is read anew: 1.5 ms more for each start of strata.
func (s *session) installed(ctx context.Context, path string) (string, error) {
	to := filepath.Join(s.top, "strata")
	_, err := output(ctx, exec.Command("install", "-m", "755", path, to))
	return to, err
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
			if path, err = s.installed(ctx, path); err != nil {
				return err
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
			return fmt.Errorf("-tools %s: want names of %s", name, allTools)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.say("%s is left out: %v", name, err)
			s.left = append(s.left, fmt.Sprintf("%s is left out: %v", name, err))
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
	// short is where run roots lie whose path may not be long; "": in the
	// store's directory.
	short string
}

// otherBuilder is one of the peers. Where rlimits cannot be raised, runc fails
// on the limits that they ask for by default.
func otherBuilder(s *session, tool string) (builder, error) {
	conf := filepath.Join(s.top, "containers.conf")
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
	if err != nil {
		return b, err
	}
	// podman refuses run roots of more than 50 characters.
	if b.short, err = os.MkdirTemp("/run", "bench-"); err == nil {
		s.cleanup = append(s.cleanup, func() error { return testenv.RemoveStore(b.short) })
	}
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
	run := filepath.Join(dir, "run")
	if b.short != "" {
		run = filepath.Join(b.short, filepath.Base(dir))
	}
	return slices.Concat([]string{b.program, "--root", filepath.Join(dir, "root"), "--runroot", run, "--storage-driver", "overlay"}, b.global)
}

// environment is that of the builder with the store below dir.
func (b builder) environment(dir string) []string {
	env := slices.Concat(os.Environ(), b.env, []string{"TMPDIR=" + tempDir(dir)})
	if b.tool == userTool {
		env = append(env, "HOME="+tempDir(dir), "XDG_RUNTIME_DIR="+tempDir(dir))
	}
	return env
}

func (b builder) call(dir string, args ...string) *exec.Cmd {
	words := append(b.words(dir), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = b.environment(dir)
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
	ours := b.tool == "strata" || b.tool == userTool
	switch {
	case r.init && !ours:
		return nil, absent("its steps are started by another program")
	case r.init && b.tool == userTool:
		return nil, absent("as root's")
	case r.init:
		return exec.Command(b.program), nil
	case r.primitive() && b.tool == "podman":
		return nil, absent("its containers are of another kind")
	case r.timed != "":
		return b.script(r.timed, p), nil
	case r.move != nil:
		return b.call(p.dir, r.move.args(p)...), nil
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
	args = append(args, "--jobs", "4", "-t", p.built(), "-f", filepath.Join(p.context, "Containerfile"), p.context)
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
	cmd.Env = slices.Concat(b.environment(p.dir), p.variables(), []string{"LAYERS=" + strings.Join(b.flags, " ")})
	return cmd
}

// together is a command that runs several of the tool's at once, and fails
// when one of them does.
func together(t tool, r row, p place) (*exec.Cmd, error) {
	var text strings.Builder
	var all *exec.Cmd
	n := r.parallel
	for i := range n {
		p.copy = fmt.Sprint(i)
		cmd, err := t.command(r, p)
		if err != nil {
			return nil, err
		}
		if _, ok := t.(yardstick); ok {
			return cmd, nil // its script does that
		}
		if all == nil {
			all = &exec.Cmd{Path: "/bin/sh", Env: cmd.Env, Dir: cmd.Dir, SysProcAttr: cmd.SysProcAttr}
		}
		words := append([]string{cmd.Path}, cmd.Args[1:]...)
		for j, w := range words {
			words[j] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		fmt.Fprintf(&text, "%s & pids=\"$pids $!\"\n", strings.Join(words, " "))
	}
	text.WriteString("for p in $pids; do wait $p || exit 1; done\n")
	all.Args = []string{"sh", "-c", text.String()}
	return all, nil
}

// command is what the tool does in the row.
func command(t tool, r row, p place) (*exec.Cmd, error) {
	if r.parallel > 1 {
		return together(t, r, p)
	}
	return t.command(r, p)
}

// output runs an untimed command.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	c := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	c.Env, c.Dir = cmd.Env, cmd.Dir
	// A group of its own: it is ended as a whole, and ^C is ours to handle.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if cmd.SysProcAttr != nil {
		c.SysProcAttr.Credential = cmd.SysProcAttr.Credential
	}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = maxEnd
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(stderr.String()))
	}
	return string(out), nil
}

// tail is the end of a long text.
func tail(s string) string { return ending(s, 1000) }

// ending is the end of a text, of n bytes at most.
func ending(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		s = "..." + strings.ToValidUTF8(s[len(s)-n:], "")
	}
	return s
}
