package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// stage executes one stage. Its fields are its goroutine's own until done is
// closed, and read-only after.
type stage struct {
	b    *build
	def  *containerfile.Stage
	once sync.Once
	done chan struct{}
	err  error
	// eventPlatform is set when the run has several platforms; shared:
	// this is the stage of more than one.
	eventPlatform string
	shared        bool

	c *builder.Container
	// platform is what the stage began with: the image's may be changed at the
	// end, while results are still being saved.
	platform define.Platform
	scope    *expand.Stage
	// top is the layer that all steps so far gave, while they came from the
	// cache; once a step was executed (missed), the container alone knows.
	top    define.LayerID
	missed bool
	// helped: somebody was in the step that is executed; see runOrAsk.
	helped bool
	// adopted: the container's chain ends at top.
	adopted bool
	// cmdSet: CMD was given in this stage, so ENTRYPOINT leaves it alone.
	cmdSet bool
	n, of  int
	// descent names the root so far by the steps that made it; see descend.
	descent digest.Digest
	// openEntry is the place, counted from 1, of the history entry that
	// stands for the changes of a stage without layers.
	openEntry int
	// steps are those of the root so far, when the image is to record them.
	steps []madeStep
}

func (s *stage) name() string {
	if s.def.Name != "" {
		return s.def.Name
	}
	return strconv.Itoa(s.def.Index)
}

// nextStep numbers an instruction for events and errors.
func (s *stage) nextStep(in *containerfile.Instruction) *define.Step {
	s.n++
	return &define.Step{ID: int(s.b.ids.Add(1)), Stage: s.name(), N: s.n, Of: s.of, Platform: s.eventPlatform,
		Text: in.Text, File: in.File, Line: in.Line}
}

func (s *stage) fail(in *containerfile.Instruction, err error) error {
	var ie *InstructionError
	if err == nil || errors.As(err, &ie) {
		return err
	}
	if s.eventPlatform != "" {
		// For the other platforms it may have gone well.
		err = fmt.Errorf("%s: %w", s.eventPlatform, err)
	}
	return &InstructionError{File: in.File, Line: in.Line, Instruction: in.Text, Err: err}
}

// run executes the stage from FROM to its end.
func (s *stage) run(ctx context.Context) error {
	s.of = 1 + len(s.def.Instructions)
	step := s.nextStep(&s.def.From)
	start := time.Now()
	s.emit(define.Event{Kind: define.EventStepStart, Step: step})
	err := s.fail(&s.def.From, s.from(ctx))
	s.emit(define.Event{Kind: define.EventStepDone, Step: step, Elapsed: time.Since(start), Err: err})
	if err != nil {
		return err
	}
	if _, replaced := s.b.contexts.find(s.def.Name); replaced {
		return s.end(ctx)
	}
	triggers, err := s.triggers()
	if err != nil {
		return s.fail(&s.def.From, err)
	}
	s.of += len(triggers)
	for _, list := range [][]containerfile.Instruction{triggers, s.def.Instructions} {
		for i := range list {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := s.fail(&list[i], s.instruction(ctx, &list[i])); err != nil {
				return err
			}
		}
	}
	return s.end(ctx)
}

// triggers takes the ONBUILD instructions that the base image left.
func (s *stage) triggers() ([]containerfile.Instruction, error) {
	list := s.c.Image.Config.OnBuild
	s.c.Image.Config.OnBuild = nil
	if n := s.b.triggers.Add(int64(len(list))); n > containerfile.MaxInstructions {
		return nil, fmt.Errorf("the base images' ONBUILD instructions are more than %d: %w", containerfile.MaxInstructions, define.ErrInvalid)
	}
	ins := make([]containerfile.Instruction, 0, len(list))
	for _, text := range list {
		in, err := containerfile.ParseOnBuild(s.c.Base.Name, text)
		if err != nil {
			return nil, err
		}
		in.File, in.Line = s.def.From.File, s.def.From.Line
		if err := s.checkTrigger(in); err != nil {
			return nil, err
		}
		in.Text = "ONBUILD " + in.Text
		if err := s.b.checkInstruction(&in); err != nil {
			return nil, &InstructionError{File: in.File, Line: in.Line, Instruction: in.Text, Err: err}
		}
		ins = append(ins, in)
	}
	return ins, nil
}

// from makes the stage's container.
func (s *stage) from(ctx context.Context) error {
	if c, ok := s.b.contexts.find(s.def.Name); ok {
		return s.fromContext(ctx, c)
	}
	if i, ok := s.b.file.StageByName(s.def.After, s.def.Index); ok {
		if _, err := s.b.wait(ctx, i); err != nil {
			return err
		}
	}
	base, err := s.b.global.Expand(s.def.Base)
	if err != nil {
		return err
	}
	if i, ok := s.baseStage(base); ok {
		return s.fromStage(ctx, i)
	}
	if base == "" {
		return fmt.Errorf("base name %q is empty once its arguments are filled in: %w", s.def.Base, define.ErrInvalid)
	}
	if c, ok := s.b.contexts.find(base); ok {
		return s.fromContext(ctx, c)
	}
	return s.fromImage(ctx, base)
}

func (s *stage) fromImage(ctx context.Context, base string) error {
	platform, err := s.b.ownPlatform(s.def)
	if err != nil {
		return err
	}
	if base, err = s.b.opts.allowedImage(base); err != nil {
		return err
	}
	s.c, err = s.b.engine.From(ctx, builder.FromOptions{Image: base, Platform: platform, Pull: s.b.opts.Pull, Space: s.b.space})
	if err != nil {
		return err
	}
	if err := s.lintPlatform(base, platform); err != nil {
		return err
	}
	s.inherit()
	s.setEnv()
	s.begin()
	s.adopted = true
	if s.c.Top() != nil {
		info, err := s.c.Top().Wait(ctx)
		if err != nil {
			return err
		}
		s.top = info.ID
	}
	if !s.b.single {
		s.descent = digest.FromString("layer " + string(s.top))
	}
	return nil
}

// baseStage is the stage that this one begins with, if it does: FROM knows
// stages by name only. A stage that only a trigger of a base image needs is
// not in the graph.
func (s *stage) baseStage(base string) (int, bool) {
	if _, planned := s.b.graph.Bases[s.def.Index]; planned {
		i, ok := s.b.graph.BaseStage[s.def.Index]
		return i, ok
	}
	for i := s.def.Index - 1; i >= 0; i-- {
		if n := s.b.file.Stages[i].Name; n != "" && strings.EqualFold(n, base) {
			return i, true
		}
	}
	return 0, false
}

// begin sets up what depends on the base image's configuration.
func (s *stage) begin() {
	s.scope, s.platform = s.b.global.Stage(s.c.Image.Config.Env), s.c.Image.Platform
}

// fromStage continues an earlier stage.
func (s *stage) fromStage(ctx context.Context, i int) error {
	parent, err := s.b.wait(ctx, i)
	if err != nil {
		return err
	}
	if err := parent.materialize(ctx); err != nil {
		return err
	}
	if s.c, err = parent.c.Fork(); err != nil {
		return err
	}
	s.inherit()
	s.top, s.missed, s.adopted = parent.top, parent.missed, true
	s.scope, s.descent, s.platform = parent.scope.Child(), parent.descent, parent.platform
	s.steps = slices.Clone(parent.steps)
	return nil
}

// end seals what a build without layers left open.
func (s *stage) end(ctx context.Context) error {
	if !s.c.Dirty() {
		return nil
	}
	made, err := s.c.Seal(ctx, s.b.freezeOptions())
	if err != nil {
		return err
	}
	// No key names the layer; when no image comes to need it, prune must.
	s.b.running.Go(func() {
		info, err := made.Wait(s.b.outer)
		if err == nil {
			err = s.b.engine.Cache().Note(s.b.outer, info.ID)
		}
		if err != nil && s.b.outer.Err() == nil {
			s.b.cancel(err)
		}
	})
	return nil
}

// materialize makes the container's chain end at top. Steps found in the
// cache only move top, so that a wholly cached build opens no layer.
func (s *stage) materialize(ctx context.Context) error {
	s.b.adopt.Lock()
	defer s.b.adopt.Unlock()
	if s.adopted {
		return nil
	}
	if err := s.c.Adopt(ctx, s.top); err != nil {
		return err
	}
	s.adopted = true
	return nil
}

func (s *stage) emit(e define.Event) { define.Emit(s.b.engine.Listener(), e) }

// topID is the layer that the stage's root consists of so far, waiting for
// its commit when it was just made; "" is the empty root.
func (s *stage) topID(ctx context.Context) (define.LayerID, error) {
	if !s.missed {
		return s.top, nil
	}
	if s.c.Top() == nil {
		return "", nil
	}
	info, err := s.c.Top().Wait(ctx)
	return info.ID, err
}

// addHistory records an instruction. A nil time is filled in at the end of
// the build from its neighbours.
func (s *stage) addHistory(createdBy string, created *time.Time, empty bool) {
	if fixed := s.b.opts.fixedTime(); fixed != nil {
		created = fixed
	}
	// An image goes to others; what a RUN step says is its author's to choose.
	if strings.HasPrefix(createdBy, "ADD ") || strings.HasPrefix(createdBy, "COPY ") {
		createdBy = define.RedactURLs(createdBy)
	}
	s.c.Image.History = append(s.c.Image.History, image.History{
		Created: created, CreatedBy: createdBy, Comment: historyComment, EmptyLayer: empty,
	})
}

// historyComment marks history entries that Build made.
const historyComment = "strata"

// slot says where in the build an instruction stands.
func (s *stage) slot(in *containerfile.Instruction, step *define.Step) cache.Slot {
	return cache.Slot{Build: s.b.identity, Stage: s.name(), N: step.N, Instruction: in.Keyword}
}
