package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// build is one run of Build.
type build struct {
	engine  *builder.Engine
	opts    Options
	context *buildcontext.Context
	file    *containerfile.File
	graph   *containerfile.Graph
	global  *expand.Global
	space   *builder.Space
	index   *cache.FileIndex
	// identity names what is built, for cache slots.
	identity string
	private  private

	stages  []*stage
	ctx     context.Context // of the stages: cancelled by the first failure
	outer   context.Context // the caller's: finished steps are kept when one fails
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // stages and background saves
	slots   chan struct{}  // bounds executing steps
	adopt   sync.Mutex     // a stage may be adopted by its children and its end at once

	ids              atomic.Int64
	mountIDs         atomic.Int64 // of scratch directories of mounts
	cached, executed atomic.Int64
}

// Build builds an image.
func Build(ctx context.Context, e *builder.Engine, o Options) (*Result, error) {
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	bc, err := buildcontext.Open(ctx, o.Context)
	if err != nil {
		return nil, err
	}
	defer bc.Close()
	for _, w := range bc.Warnings {
		define.Emit(e.Listener(), define.Event{Kind: define.EventWarning, Text: w})
	}
	file, err := parseFiles(bc)
	if err != nil {
		return nil, err
	}
	b := &build{engine: e, opts: o, context: bc, file: file}
	graph, err := b.plan()
	if err != nil {
		return nil, err
	}
	if _, err := e.Store().Sweep(ctx); err != nil {
		// What somebody else left is no reason not to build.
		b.warn("what an earlier build left cannot be removed: " + err.Error())
	}
	return b.execute(ctx, graph)
}

func parseFiles(bc *buildcontext.Context) (*containerfile.File, error) {
	sources := make([]containerfile.Source, len(bc.Files))
	for i, f := range bc.Files {
		sources[i] = containerfile.Source{Name: f.Name, Content: f.Content}
	}
	return containerfile.ParseFiles(sources)
}

// checkOptions refuses what this version cannot do and what is malformed.
func checkOptions(o *Options) error {
	if len(o.Platforms) > 1 {
		return fmt.Errorf("several platforms in one build are not in this version of strata; build them one by one: %w", define.ErrUnsupported)
	}
	if t := o.BuildArgs["SOURCE_DATE_EPOCH"]; t != "" && o.SourceDateEpoch == nil {
		n, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return fmt.Errorf("build argument SOURCE_DATE_EPOCH=%q: want seconds since 1970: %w", t, define.ErrInvalid)
		}
		epoch := time.Unix(n, 0).UTC()
		o.SourceDateEpoch = &epoch
	}
	for _, kv := range append(append([]string(nil), o.Labels...), o.Annotations...) {
		if k, _, _ := strings.Cut(kv, "="); k == "" {
			return fmt.Errorf("label or annotation %q: want key=value: %w", kv, define.ErrInvalid)
		}
	}
	if err := checkPrivate(o); err != nil {
		return err
	}
	return checkOutputs(o.Outputs)
}

// plan prepares the global arguments, the stages and the identity.
func (b *build) plan() (*containerfile.Graph, error) {
	name := b.opts.Target
	if n := len(b.file.Stages); name == "" && n > 0 {
		name = b.file.Stages[n-1].Name
	}
	b.global = expand.NewGlobal(b.opts.BuildArgs, b.opts.platform(), define.HostPlatform(), name)
	b.global.SetEscape(b.file.Escape)
	for _, in := range b.file.Args {
		if err := b.global.DeclareAll(in); err != nil {
			return nil, err
		}
	}
	b.mentionArgs()
	graph, err := b.file.Graph(b.opts.Target, b.global.Expand)
	if err != nil {
		return nil, err
	}
	h := digest.FromString(strings.Join([]string{b.context.Name, b.context.ContainerfileName,
		b.opts.Target, define.FormatPlatform(b.opts.platform())}, "\x00"))
	b.identity = h.Encoded()[:32]
	return graph, nil
}

// mentionArgs notes the arguments that stages declare, needed ones or not: a
// build argument for a stage that --target leaves out is no mistake.
func (b *build) mentionArgs() {
	for i := range b.file.Stages {
		for _, in := range b.file.Stages[i].Instructions {
			if cmd, ok := in.Command.(*instructions.ArgCommand); ok {
				b.global.Mention(cmd.Args...)
			}
		}
	}
}

// jobs is how many steps execute at once when the user does not say: more
// than the processors, since steps often wait for networks and disks.
func (b *build) jobs() int {
	if b.opts.Jobs > 0 {
		return b.opts.Jobs
	}
	return max(4, 2*runtime.NumCPU())
}

func (b *build) execute(ctx context.Context, graph *containerfile.Graph) (_ *Result, err error) {
	b.graph = graph
	b.outer, b.space = ctx, b.engine.NewSpace(ctx)
	b.slots = make(chan struct{}, b.jobs())
	if b.index, err = b.engine.Cache().Index(ctx, b.identity); err != nil {
		return nil, err
	}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	defer b.cancel(nil)
	b.makeStages()
	b.announce(graph)
	for _, i := range graph.Needed {
		b.start(i)
	}
	target := b.stages[graph.Target]
	<-target.done
	var result *Result
	if err = target.err; err == nil {
		result, err = b.finish(b.ctx, target)
	}
	if err != nil {
		b.cancel(err)
	}
	b.running.Wait()
	if err != nil && b.executed.Load() > 0 && ctx.Err() == nil {
		// No image was recorded, but steps were: their layers are to survive
		// a power cut too.
		err = errors.Join(err, b.space.Sync(ctx))
	}
	if cleanup := errors.Join(b.index.Flush(), b.closeStages(), b.space.Close()); cleanup != nil {
		// The image stands, or the failure is another one; the next build
		// collects what is left.
		b.warn("cleaning up: " + cleanup.Error())
	}
	if err != nil {
		return nil, b.firstFailure(err)
	}
	result.Cached, result.Executed = int(b.cached.Load()), int(b.executed.Load())
	return result, nil
}

func (b *build) makeStages() {
	b.stages = make([]*stage, len(b.file.Stages))
	for i := range b.file.Stages {
		b.stages[i] = &stage{b: b, def: &b.file.Stages[i], done: make(chan struct{})}
	}
}

// announce reports the size of the plan and the parser's warnings.
func (b *build) announce(graph *containerfile.Graph) {
	steps := 0
	for _, i := range graph.Needed {
		steps += 1 + len(b.file.Stages[i].Instructions)
	}
	define.Emit(b.engine.Listener(), define.Event{Kind: define.EventPlan, Of: steps})
	for _, w := range b.file.Warnings {
		define.Emit(b.engine.Listener(), define.Event{Kind: define.EventWarning, Text: w.Text, File: w.File, Line: w.Line})
	}
}

// start runs a stage, once.
func (b *build) start(i int) *stage {
	s := b.stages[i]
	s.once.Do(func() {
		b.running.Go(func() {
			s.err = s.run(b.ctx)
			if s.err != nil {
				b.cancel(s.err)
			}
			close(s.done)
		})
	})
	return s
}

// wait returns a stage once it has ended, starting it when nothing has.
func (b *build) wait(ctx context.Context, i int) (*stage, error) {
	s := b.start(i)
	select {
	case <-s.done:
		return s, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// firstFailure prefers the failure that cancelled the build to those that the
// cancelling caused.
func (b *build) firstFailure(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(b.ctx); cause != nil {
		return cause
	}
	return err
}

func (b *build) closeStages() error {
	var err error
	for _, s := range b.stages {
		if s.c != nil {
			err = errors.Join(err, s.c.Close())
		}
	}
	return err
}

// freezeOptions says how times reach layers.
func (b *build) freezeOptions() layer.FreezeOptions {
	return layer.FreezeOptions{Timestamp: b.opts.Timestamp, Clamp: b.opts.SourceDateEpoch}
}

// unusedArgs warns about build arguments that nothing declared.
func (b *build) unusedArgs() {
	unused := b.global.Unused()
	if len(unused) == 0 {
		return
	}
	sort.Strings(unused)
	define.Emit(b.engine.Listener(), define.Event{Kind: define.EventWarning,
		Text: "build arguments that no ARG declares: " + strings.Join(unused, ", ")})
}
