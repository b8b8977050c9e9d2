package imagebuildah

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// scriptPath is where a heredoc that names its own interpreter is mounted.
const scriptPath = "/run/strata/script"

// runPlan is a RUN instruction, ready to execute.
type runPlan struct {
	args []string
	// args of the instruction's scope that the step sees; they count.
	scope []string
	// env is what the step sees beside the image's variables: scope, and the
	// proxies, which count neither for the key nor for the history.
	env []string
	// script is the content mounted at scriptPath; nil when there is none.
	script      []byte
	confinement RunOptions
	mounts      []*runMount
	insecure    bool // RUN --security=insecure
	// user and dir replace the image's when set.
	user, dir string
	// streams are the process's, where it does not report its output as
	// events: Stdin, Stdout, Stderr and Terminal count.
	streams builder.Run
}

func (s *stage) runInstruction(ctx context.Context, in *containerfile.Instruction, cmd *instructions.RunCommand) error {
	p, err := s.planRun(ctx, in, cmd)
	if err != nil {
		return err
	}
	defer p.closeMounts()
	return s.runPlanned(ctx, in, p)
}

func (s *stage) runPlanned(ctx context.Context, in *containerfile.Instruction, p *runPlan) error {
	return s.layerStep(ctx, fsStep{
		in:        in,
		createdBy: s.runHistory(p),
		keys: []func(context.Context) (*cache.Key, error){
			func(ctx context.Context) (*cache.Key, error) { return s.runKey(ctx, p) },
		},
		exec: func(ctx context.Context, step *define.Step) (bool, error) {
			return true, s.runExec(ctx, p, step)
		},
	})
}

// runExec runs the process; its changes stay open in the stage's container.
func (s *stage) runExec(ctx context.Context, p *runPlan, step *define.Step) (err error) {
	if err := s.materialize(ctx); err != nil {
		return err
	}
	if err := s.c.CheckEmulator(ctx); err != nil {
		return err
	}
	r := p.streams
	r.Args, r.Env, r.User, r.Dir, r.Step, r.Confinement = p.args, p.env, p.user, p.dir, step, p.confinement
	if p.insecure {
		if err := insecure(&r.Confinement); err != nil {
			return err
		}
	}
	if p.script != nil {
		r.Files = map[string][]byte{scriptPath: p.script}
	}
	done, err := s.coverVolumes(ctx, &r)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	return s.withMounts(ctx, p, step, &r, func() error { return s.runOrAsk(ctx, r) })
}

func (s *stage) planRun(ctx context.Context, in *containerfile.Instruction, cmd *instructions.RunCommand) (*runPlan, error) {
	if err := s.b.checkRun(cmd); err != nil {
		return nil, err // a trigger's
	}
	p := &runPlan{insecure: instructions.GetSecurity(cmd) == instructions.SecurityInsecure, env: s.scope.RunEnv(), confinement: s.b.opts.Run}
	for _, a := range s.scope.UsedArgs() {
		p.scope = append(p.scope, a.Name+"="+a.Value)
	}
	switch network := instructions.GetNetwork(cmd); network {
	case instructions.NetworkDefault:
	case instructions.NetworkNone:
		p.confinement.Network = isolation.NetworkNone
	case instructions.NetworkHost:
		p.confinement.Network = isolation.NetworkHost
	default:
		return nil, fmt.Errorf("--network=%s: want default, none or host: %w", network, define.ErrInvalid)
	}
	if err := s.planDevices(p, cmd); err != nil {
		return nil, err
	}
	if name := s.b.opts.BuildArgs["BUILDKIT_SANDBOX_HOSTNAME"]; name != "" && p.confinement.Hostname == "" {
		p.confinement.Hostname = name
	}
	p.streams.Stdin = s.b.opts.Stdin
	p.args, p.script = s.runArgs(cmd.ShellDependantCmdLine)
	mounts, err := parseMounts(s.b.opts.Mounts)
	if err != nil {
		return nil, err
	}
	own, err := in.Mounts(s.scope.Expand)
	if err != nil {
		return nil, err
	}
	p.mounts, err = s.planMounts(ctx, append(mounts, own...))
	return p, err
}

// runArgs turns the instruction into a command. A lone heredoc is the
// script: for the shell, or for the interpreter its first line names. Other
// heredocs stay part of the text that the shell reads.
func (s *stage) runArgs(c instructions.ShellDependantCmdLine) (args []string, script []byte) {
	if len(c.Files) == 0 {
		return s.commandLine(c), nil
	}
	if c.PrependShell && len(c.CmdLine) == 1 && strings.HasPrefix(c.CmdLine[0], "<<") && len(c.Files) == 1 {
		data := c.Files[0].Data
		if c.Files[0].Chomp {
			data = stripTabs(data)
		}
		if interpreter, ok := shebang(data); ok {
			return append(interpreter, scriptPath), []byte(data)
		}
		return append(append([]string(nil), s.shellArgs()...), data), nil
	}
	text := strings.Join(c.CmdLine, " ")
	for _, f := range c.Files {
		text += "\n" + f.Data + f.Name
	}
	return append(append([]string(nil), s.shellArgs()...), text), nil
}

// stripTabs removes leading tabs, as <<-EOF asks for.
func stripTabs(data string) string {
	lines := strings.SplitAfter(data, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, "\t")
	}
	return strings.Join(lines, "")
}

// shebang reads "#!interpreter [argument]" from the first line, as
// execve(2) does: all behind the interpreter is one argument.
func shebang(data string) ([]string, bool) {
	line, _, _ := strings.Cut(data, "\n")
	if !strings.HasPrefix(line, "#!") {
		return nil, false
	}
	line = strings.TrimSpace(strings.TrimPrefix(line, "#!"))
	interpreter, arg, found := strings.Cut(line, " ")
	if interpreter == "" {
		return nil, false
	}
	if arg = strings.TrimSpace(arg); found && arg != "" {
		return []string{interpreter, arg}, true
	}
	return []string{interpreter}, true
}

// runKey names everything that the step can notice.
func (s *stage) runKey(ctx context.Context, p *runPlan) (*cache.Key, error) {
	k := s.baseKey("RUN")
	k.Add(cache.PartCommand, strings.Join(p.args, " "))
	// The same text may be split into other arguments.
	k.Add("arguments", strconv.Itoa(len(p.args)))
	addList(k, "argument", p.args)
	if p.script != nil {
		k.Add("script", string(p.script))
	}
	k.Add("user", cmp.Or(p.user, s.c.Image.Config.User))
	k.Add("workdir", cmp.Or(p.dir, s.c.Image.Config.WorkingDir))
	addEnv(k, "variable", s.c.Image.Config.Env)
	addEnv(k, "build argument", p.scope)
	addList(k, "--compat-volumes", s.volumes())
	addConfinement(k, p.confinement)
	if err := s.b.deviceParts(k, &p.confinement); err != nil {
		return nil, err
	}
	if p.insecure {
		k.Add("--security", instructions.SecurityInsecure)
	}
	for _, m := range p.mounts {
		if err := s.mountParts(ctx, k, m); err != nil {
			return nil, fmt.Errorf("--mount of %s: %w", m.target, err)
		}
	}
	return k, nil
}

// runHistory is the history's text: the arguments in front, as docker has it.
func (s *stage) runHistory(p *runPlan) string {
	text := strings.Join(p.args, " ")
	if len(p.scope) == 0 {
		return "RUN " + text
	}
	env := append([]string(nil), p.scope...)
	sort.Strings(env)
	return fmt.Sprintf("RUN |%d %s %s", len(env), strings.Join(env, " "), text)
}
