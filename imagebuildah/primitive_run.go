package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// CommandOptions describes one run.
type CommandOptions struct {
	StepOptions
	// Args is the command, executed as it is: neither a shell nor the image's
	// entry point is put before it.
	Args []string
	// Env is "NAME=value", for this process only.
	Env []string
	// User and Dir replace the image's USER and WORKDIR when set.
	User, Dir   string
	Confinement builder.Confinement
	// Mounts are values of RUN --mount, with the same meaning: what type=bind
	// shows without from= is of ContextDir or, with "", of the host (source is
	// then relative to the working directory), and changes to it are thrown
	// away. from= names a working container or an image.
	Mounts     []string
	ContextDir string
	Secrets    []Secret
	SSH        []SSH
	// Stdin, Stdout, Stderr and Terminal are builder.Run's. A cached run has
	// no Stdin and no Terminal, which no key could tell.
	Stdin, Stdout, Stderr *os.File
	Terminal              *isolation.Terminal
}

// Ran is what Run did.
type Ran struct {
	// Cached: nothing was executed, the layer was there.
	Cached bool
}

// Run runs a command in a container (see StepOptions for what is left to the
// caller). A command that fails gives an *isolation.ExitError; without Cached
// what it has changed stays.
//
// The key of a cached run is that of a build's RUN in exec form with the same
// arguments; Env, User and Dir are parts of it. Secrets, agents, the contents
// of volumes and cache mounts are not.
func Run(ctx context.Context, c *builder.Container, o CommandOptions) (*Ran, error) {
	switch {
	case len(o.Args) == 0 || o.Args[0] == "":
		return nil, fmt.Errorf("no command was given: %w", define.ErrInvalid)
	case o.Cached && (o.Stdin != nil || o.Terminal != nil):
		return nil, fmt.Errorf("a cached run reads neither standard input nor a terminal; leave out --cached or --terminal: %w", define.ErrInvalid)
	}
	mounts, err := o.parseMounts()
	if err != nil {
		return nil, err
	}
	// Only mounts read the host's files.
	source, _, err := hostSources(o.ContextDir, "", nil)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	p, err := newPrimitive(ctx, c, o.StepOptions, source)
	if err != nil {
		return nil, err
	}
	p.b.opts.Run, p.b.opts.Secrets, p.b.opts.SSH = o.Confinement, o.Secrets, o.SSH
	var from []string
	for _, m := range mounts {
		from = append(from, m.From)
	}
	var done *Ran
	err = p.withContainers(ctx, from, func() (err error) {
		done, err = p.run(ctx, &o, mounts)
		return err
	})
	return done, errors.Join(err, p.close())
}

// parseMounts reads --mount as RUN does.
func (o *CommandOptions) parseMounts() ([]containerfile.Mount, error) {
	mounts, err := parseMounts(o.Mounts)
	if err != nil {
		return nil, err
	}
	return mounts, o.hostMounts(mounts)
}

// hostMounts makes what names the host's files without a context absolute.
func (o *CommandOptions) hostMounts(list []containerfile.Mount) error {
	for _, m := range list {
		if m.Type != instructions.MountTypeBind || m.From != "" || o.ContextDir != "" || filepath.IsAbs(m.Source) {
			continue
		}
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		m.Source = filepath.Join(wd, m.Source)
	}
	return nil
}

func (p *primitive) run(ctx context.Context, o *CommandOptions, mounts []containerfile.Mount) (*Ran, error) {
	s := p.s
	r := &runPlan{args: o.Args, scope: o.Env, env: o.Env, user: o.User, dir: o.Dir, confinement: o.Confinement,
		streams: builder.Run{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Terminal: o.Terminal}}
	var err error
	if r.mounts, err = s.planMounts(ctx, mounts); err != nil {
		return nil, err
	}
	defer r.closeMounts()
	in := p.instruction("RUN", strings.Join(o.Args, " "))
	done := &Ran{}
	if p.o.Cached {
		err = p.settle(ctx, s.runPlanned(ctx, in, r))
		done.Cached = p.b.cached.Load() > 0
	} else if err = s.runExec(ctx, r, nil); err == nil {
		p.history(s.runHistory(r))
	}
	if err != nil {
		return nil, err
	}
	return done, nil
}
