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

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/cdi"
	"github.com/stratabuild/strata/builder/layer"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// run is one run of Build: what the builds of its platforms share.
type run struct {
	engine  *builder.Engine
	context *buildcontext.Context
	// contexts are those of --build-context.
	contexts namedContexts
	file     *containerfile.File
	space    *builder.Space
	index    *cache.FileIndex
	private  private
	remote   *remoteCache // nil without caches elsewhere

	ctx     context.Context // of the stages: cancelled by the first failure
	outer   context.Context // the caller's: finished steps are kept when one fails
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // stages and background saves
	slots   chan struct{}  // bounds executing steps
	adopt   sync.Mutex     // a stage may be adopted by its children and its end at once

	flights flights
	// single: there is one stage, whose steps nobody else can need.
	single bool

	ids              atomic.Int64
	mountIDs         atomic.Int64 // of scratch directories of mounts
	cached, executed atomic.Int64
	triggers         atomic.Int64 // ONBUILD instructions of base images

	cdiOnce sync.Once
	cdi     *cdi.Registry
	cdiErr  error
}

// build is the build of one platform.
type build struct {
	*run
	opts   Options // with one platform
	graph  *containerfile.Graph
	global *expand.Global
	stages []*stage
	// roots are the working containers that --from names.
	roots map[string]*copier.Root
	// identity names what is built, for cache slots.
	identity string
	// label is the platform, for events, when the run has several.
	label string
}

// Build builds an image.
func Build(ctx context.Context, e *builder.Engine, o Options) (*Result, error) {
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	r := &run{engine: e}
	o.Context.Secrets = func(id string) ([]byte, bool, error) { return r.private.secret(o.Secrets, id) }
	if keep := o.BuildArgs["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]; keep != "" {
		// As BuildKit reads it: what is no truth value says nothing.
		o.Context.KeepGitDir, _ = strconv.ParseBool(keep)
	}
	var err error
	if err = o.allowedContexts(); err != nil {
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
	contexts := newNamedContexts(&o)
	defer contexts.close()
	file, err := parseFiles(bc, contexts.names(), o.BuildArgs["BUILDKIT_DOCKERFILE_CHECK"])
	if err != nil {
		return nil, err
	}
	if err := replaceBase(file, o.From); err != nil {
		return nil, err
	}
	r.context, r.contexts, r.file, r.remote = bc, contexts, file, newRemoteCache(e, &o)
	r.checkStageNames(o.NoCacheStages)
	builds, err := r.planBuilds(ctx, o)
	if err != nil {
		return nil, err
	}
	if _, err := e.Store().Sweep(ctx); err != nil {
		// What somebody else left is no reason not to build.
		r.warn("what an earlier build left cannot be removed: " + err.Error())
	}
	return r.execute(ctx, builds)
}

func parseFiles(bc *buildcontext.Context, contexts []string, check string) (*containerfile.File, error) {
	sources := make([]containerfile.Source, len(bc.Files))
	for i, f := range bc.Files {
		sources[i] = containerfile.Source{Name: f.Name, Content: f.Content}
	}
	file, err := containerfile.ParseFilesWith(sources, containerfile.Options{Contexts: contexts, Check: check})
	if err == nil {
		err = file.RuleError()
	}
	return file, err
}

// checkOptions refuses what this version cannot do and what is malformed.
func checkOptions(o *Options) error {
	if err := checkPlatforms(o); err != nil {
		return err
	}
	if err := checkEpoch(o); err != nil {
		return err
	}
	for _, kv := range append(append([]string(nil), o.Labels...), o.Annotations...) {
		if k, _, _ := strings.Cut(kv, "="); k == "" {
			return fmt.Errorf("label or annotation %q: want key=value: %w", kv, define.ErrInvalid)
		}
	}
	for _, name := range o.Allow {
		if err := CheckEntitlement(name); err != nil {
			return err
		}
	}
	for name, value := range o.BuildContexts {
		if err := CheckBuildContext(name, value); err != nil {
			return err
		}
	}
	if err := o.Settings.check(); err != nil {
		return err
	}
	if err := checkPrivate(o); err != nil {
		return err
	}
	if err := checkCompat(o); err != nil {
		return err
	}
	if err := checkSBOMs(o); err != nil {
		return err
	}
	return checkOutputs(o.Outputs)
}

// plan prepares the global arguments, the stages and the identity.
func (b *build) plan() error {
	name := b.opts.Target
	if n := len(b.file.Stages); name == "" && n > 0 {
		name = b.file.Stages[n-1].Name
	}
	b.global = expand.NewGlobal(b.opts.BuildArgs, b.opts.platform(), define.HostPlatform(), name)
	b.global.SetEscape(b.file.Escape)
	for _, in := range b.file.Args {
		if err := b.global.DeclareAll(in); err != nil {
			return err
		}
	}
	if err := b.epochArg(); err != nil {
		return err
	}
	b.mentionArgs()
	makeGraph := b.file.Graph
	if b.opts.AllStages {
		makeGraph = b.file.GraphOfAll
	}
	graph, err := makeGraph(b.opts.Target, b.global.Expand)
	if err != nil {
		return err
	}
	h := digest.FromString(strings.Join([]string{b.context.Name, b.context.ContainerfileName,
		b.opts.Target, define.FormatPlatform(b.opts.platform())}, "\x00"))
	b.identity = h.Encoded()[:32]
	b.graph = graph
	return b.checkPlan()
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
func jobs(o *Options) int {
	if o.Jobs > 0 {
		return o.Jobs
	}
	return max(4, 2*runtime.NumCPU())
}

// execute runs the builds, all at once: their stages wait for each other and
// for slots only.
func (r *run) execute(ctx context.Context, builds []*build) (_ *Result, err error) {
	r.outer, r.space = ctx, r.engine.NewSpace(ctx)
	r.slots = make(chan struct{}, jobs(&builds[0].opts))
	// Files are the same for all platforms.
	if r.index, err = r.engine.Cache().Index(ctx, builds[0].identity); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	r.makeStages(builds)
	r.single = alone(builds)
	r.announce(builds)
	for _, b := range builds {
		for _, i := range b.graph.Needed {
			b.start(i)
		}
	}
	for _, b := range builds {
		for _, i := range b.awaited() {
			s := b.stages[i]
			<-s.done
			if err == nil {
				err = s.err
			}
		}
	}
	var result *Result
	if err == nil {
		r.engine.ReleaseNetworks()
		result, err = finish(r.ctx, builds)
	}
	if err != nil {
		r.cancel(err)
	}
	r.running.Wait()
	r.remote.export(ctx)
	r.exportMounts(ctx)
	if err != nil && r.executed.Load() > 0 && ctx.Err() == nil {
		// No image was recorded, but steps were: their layers are to survive
		// a power cut too.
		err = errors.Join(err, r.space.Sync(ctx))
	}
	if cleanup := errors.Join(r.index.Flush(), closeStages(builds), r.space.Close()); cleanup != nil {
		// The image stands, or the failure is another one; the next build
		// collects what is left.
		r.warn("cleaning up: " + cleanup.Error())
	}
	if err != nil {
		return nil, r.firstFailure(err)
	}
	result.Cached, result.Executed = int(r.cached.Load()), int(r.executed.Load())
	return result, nil
}

// awaited are the stages without which there is no image.
func (b *build) awaited() []int {
	if b.opts.AllStages {
		return b.graph.Needed
	}
	return []int{b.graph.Target}
}

// makeStages makes the stages of all builds. What is the same for several
// platforms (FROM --platform=$BUILDPLATFORM) is made once.
func (r *run) makeStages(builds []*build) {
	known := map[string]*stage{}
	for _, b := range builds {
		b.stages = make([]*stage, len(r.file.Stages))
		keys := make([]string, len(r.file.Stages))
		if len(builds) > 1 {
			keys = b.stageKeys()
		}
		for i := range r.file.Stages {
			s := known[keys[i]]
			if s == nil {
				s = &stage{b: b, def: &r.file.Stages[i], done: make(chan struct{}), eventPlatform: b.stageLabel(i)}
				if keys[i] != "" {
					known[keys[i]] = s
				}
			} else {
				s.shared = true
			}
			b.stages[i] = s
		}
	}
	for _, b := range builds {
		for _, s := range b.stages {
			if s.b == b && !s.shared && s.eventPlatform != b.label {
				// One of several that run on the same platform, as buildx has it.
				s.eventPlatform += "->" + b.label
			}
		}
	}
}

// announce reports the size of the plan and the parser's warnings.
func (r *run) announce(builds []*build) {
	steps := 0
	for _, b := range builds {
		for _, i := range b.graph.Needed {
			if b.stages[i].b == b {
				steps += 1 + len(r.file.Stages[i].Instructions)
			}
		}
	}
	define.Emit(r.engine.Listener(), define.Event{Kind: define.EventPlan, Of: steps})
	for _, w := range r.file.Warnings {
		define.Emit(r.engine.Listener(), define.Event{Kind: define.EventWarning, Text: w.String(), File: w.File, Line: w.Line})
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
func (r *run) firstFailure(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	return err
}

func closeStages(builds []*build) error {
	var err error
	for _, b := range builds {
		for _, s := range b.stages {
			if s.b == b && s.c != nil {
				err = errors.Join(err, s.c.Close())
			}
		}
	}
	return err
}

// freezeOptions says how times reach layers.
func (b *build) freezeOptions() layer.FreezeOptions {
	o := layer.FreezeOptions{Timestamp: b.opts.Timestamp}
	if !b.opts.KeepFileTimes {
		o.Clamp = b.opts.SourceDateEpoch
	}
	return o
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
