package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// daemonWait is how long a daemon may take to answer, or to end.
const daemonWait = 30 * time.Second

// daemons are the builders behind a socket: each store has one of its own,
// started with the store and ended before the store goes.
type daemons struct {
	running map[string]*daemon // by store
}

type daemon struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan error
}

// start runs the command until stop, and waits until ready answers.
func (d *daemons) start(ctx context.Context, dir string, cmd *exec.Cmd, ready func() *exec.Cmd) error {
	d.stop(dir)
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDir(dir))
	b := &daemon{cmd: cmd, ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &b.output, &b.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if d.running == nil {
		d.running = map[string]*daemon{}
	}
	d.running[dir] = b
	go func() { b.ended <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, daemonWait)
	defer cancel()
	for {
		if ready().Run() == nil {
			return nil
		}
		select {
		case err := <-b.ended:
			delete(d.running, dir)
			return fmt.Errorf("%s ended: %v: %s", cmd.Path, err, tail(b.output.String()))
		case <-ctx.Done():
			d.stop(dir)
			return fmt.Errorf("%s does not answer: %w: %s", cmd.Path, ctx.Err(), tail(b.output.String()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop ends the daemon of a store, if it has one.
func (d *daemons) stop(dir string) {
	b := d.running[dir]
	if b == nil {
		return
	}
	delete(d.running, dir)
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(daemonWait):
		_ = b.cmd.Process.Kill()
		<-b.ended
	}
}

// daemon is the process that serves a store.
func (d *daemons) daemon(dir string) int {
	if b := d.running[dir]; b != nil {
		return b.cmd.Process.Pid
	}
	return 0
}

func (d *daemons) own(string) error { return nil }

// docker is the builder of a daemon that is started for each store.
type docker struct {
	*daemons
	client, server string
	files          string // of the base image
}

// newDocker looks for a client that builds: those since 23 need a plugin.
func newDocker(ctx context.Context, s *session) (tool, error) {
	files, err := s.baseFiles(ctx)
	if err != nil {
		return nil, err
	}
	server, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, fmt.Errorf("a daemon is needed: %w", err)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		client := filepath.Join(dir, "docker")
		out, err := exec.Command(client, "version", "--format", "{{.Client.Version}}").Output()
		if len(out) == 0 && err != nil {
			continue // no daemon answers, but there must be a client
		}
		major, _, _ := strings.Cut(string(out), ".")
		if len(major) == 2 && major < "23" || exec.Command(client, "buildx", "version").Run() == nil {
			return docker{&daemons{}, client, server, files}, nil
		}
	}
	return nil, errors.New("no docker client that has the builder's plugin")
}

func (d docker) name() string { return "docker" }

func (d docker) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, d.server, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func (d docker) call(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(d.client, args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1", "DOCKER_HOST=unix://"+filepath.Join(dir, "docker.sock"))
	return cmd
}

func (d docker) prepare(ctx context.Context, dir string) error {
	server := exec.Command(d.server, "--iptables=false", "--ip6tables=false", "--bridge=none",
		"--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://"+filepath.Join(dir, "docker.sock"))
	if err := d.start(ctx, dir, server, func() *exec.Cmd { return d.call(dir, "info") }); err != nil {
		return err
	}
	archive := filepath.Join(dir, "base.tar")
	if _, err := output(ctx, exec.Command("tar", "-C", d.files, "-cf", archive, ".")); err != nil {
		return err
	}
	_, err := output(ctx, d.call(dir, "import", archive, baseName))
	return err
}

func (d docker) command(r row, p place) (*exec.Cmd, error) {
	if r.store != nil {
		return nil, absent(noRecords)
	}
	if r.init || r.primitive() {
		return nil, absent("its containers are of another kind")
	}
	switch m := r.move; {
	case m != nil && m.verb == "pull":
		return d.call(p.dir, "pull", "-q", p.registry+"/"+pushed), nil
	case m != nil && m.verb == "push" && m.zip == "gzip":
		return d.call(p.dir, "push", "-q", p.registry+"/"+pushed), nil
	case m != nil && m.verb == "push":
		return nil, absent("it compresses with gzip only")
	case m != nil:
		return nil, absent("it writes no OCI layout")
	case len(r.args) > 0 && r.args[0] != "build":
		var args []string
		for _, a := range r.args {
			args = append(args, p.expand(a))
		}
		return d.call(p.dir, args...), nil
	}
	args := buildArgs(r, p)
	if p.registry != "" {
		args = append([]string{"-t", p.registry + "/" + pushed}, args...)
	}
	return d.call(p.dir, append([]string{"build", "--network", "host", "-f", filepath.Join(p.context, "Containerfile")}, args...)...), nil
}

func (d docker) script(text string, p place) *exec.Cmd {
	cmd := d.call(p.dir)
	cmd.Path = "/bin/sh"
	cmd.Args = []string{"sh", "-ec", "B() { '" + d.client + "' \"$@\"; }\n" + text}
	cmd.Env = append(cmd.Env, p.variables()...)
	return cmd
}

// noRecords is why a store of another form has no rows among many images.
const noRecords = "its store is of another form and would have to be filled by builds"

// buildArgs are the arguments of a row that is a build, the context last.
func buildArgs(r row, p place) []string {
	if len(r.args) > 0 {
		var args []string
		for _, a := range r.args[1:] {
			args = append(args, p.expand(a))
		}
		return args
	}
	args := []string{"-t", p.built(), p.context}
	if !r.cached {
		args = append([]string{"--no-cache"}, args...)
	}
	return args
}

// buildctlVariable names a buildctl; buildkitd must lie beside it.
const buildctlVariable = "STRATA_BENCH_BUILDCTL"

// buildctl is BuildKit with a daemon that is started for each store.
type buildctl struct {
	*daemons
	client, server string
	base           string // the base image's layout
	digest         digest.Digest
}

func newBuildctl(s *session) (tool, error) {
	client := os.Getenv(buildctlVariable)
	if client == "" {
		return nil, errors.New(buildctlVariable + " names none")
	}
	server := filepath.Join(filepath.Dir(client), "buildkitd")
	if _, err := os.Stat(server); err != nil {
		return nil, err
	}
	return buildctl{&daemons{}, client, server, s.base, s.baseDigest}, nil
}

func (b buildctl) name() string { return "buildctl" }

func (b buildctl) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.server, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(out))
}

func (b buildctl) call(dir string, args ...string) *exec.Cmd {
	return exec.Command(b.client, append([]string{"--addr", "unix://" + filepath.Join(dir, "buildkit.sock")}, args...)...)
}

func (b buildctl) prepare(ctx context.Context, dir string) error {
	server := exec.Command(b.server, "--root", filepath.Join(dir, "root"), "--addr", "unix://"+filepath.Join(dir, "buildkit.sock"),
		"--oci-worker-snapshotter", "overlayfs", "--oci-worker-net", "host", "--containerd-worker=false",
		"--allow-insecure-entitlement", "network.host")
	return b.start(ctx, dir, server, func() *exec.Cmd { return b.call(dir, "debug", "workers") })
}

func (b buildctl) command(r row, p place) (*exec.Cmd, error) {
	output := "type=image,name=" + p.built()
	switch m := r.move; {
	case r.store != nil:
		return nil, absent(noRecords)
	case r.init || r.primitive():
		return nil, absent("it has no containers")
	case len(r.args) > 0 && r.args[0] == "version":
		return exec.Command(b.client, "--version"), nil
	case r.before != "" || len(r.args) > 0 && r.args[0] != "build":
		return nil, absent("it has no command for images")
	case m == nil:
	case m.verb == "pull":
		return nil, absent("it has no command that pulls")
	case m.verb == "push":
		output = "type=image,push=true,registry.insecure=true,oci-mediatypes=true,force-compression=true,compression=" + m.zip + ",name=" + p.registry + "/" + pushed
	case m.verb == "archive":
		output = p.expand("type=oci,dest=$DIR/archive$N.tar")
	case m.verb == "folder":
		output = p.expand("type=oci,tar=false,compression=uncompressed,force-compression=true,dest=$DIR/export$N")
	}
	line := []string{"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", "filename=Containerfile",
		"--local", "context=" + p.context, "--local", "dockerfile=" + p.context,
		"--oci-layout", "base=" + b.base, "--opt", "context:" + baseName + "=oci-layout://base@" + b.digest.String(),
		"--opt", "force-network-mode=host", "--allow", "network.host", "--output", output}
	if r.move != nil {
		return b.call(p.dir, line...), nil // of what was built before
	}
	args := buildArgs(r, p)
	for i, a := range args {
		switch {
		case a == "--no-cache":
			line = append(line, a)
		case a == "--build-arg":
			line = append(line, "--opt", "build-arg:"+args[i+1])
		}
	}
	return b.call(p.dir, line...), nil
}

func (b buildctl) script(string, place) *exec.Cmd { return nil }
