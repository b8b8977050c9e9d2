package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// checkPlatforms brings the platforms into normal form, each once, and
// refuses what several cannot have.
func checkPlatforms(o *Options) error {
	if o.AllPlatforms && len(o.Platforms) > 0 {
		return fmt.Errorf("all platforms and some platforms: want one or the other: %w", define.ErrInvalid)
	}
	var platforms []define.Platform
	for _, p := range o.Platforms {
		p = define.NormalizePlatform(p)
		if !slices.ContainsFunc(platforms, func(q define.Platform) bool { return define.FormatPlatform(q) == define.FormatPlatform(p) }) {
			platforms = append(platforms, p)
		}
	}
	o.Platforms = platforms
	if o.Manifest != "" {
		if _, err := transport.NormalizeTag(o.Manifest); err != nil {
			return err
		}
	}
	if len(platforms) < 2 {
		return nil
	}
	return checkListOutputs(o)
}

// checkListOutputs refuses outputs that hold one image only.
func checkListOutputs(o *Options) error {
	for _, out := range o.Outputs {
		if out.Type == "docker" && out.Dest != "" {
			return fmt.Errorf("output type=docker: a docker archive cannot hold images of several platforms: use type=oci: %w", define.ErrInvalid)
		}
	}
	for _, t := range o.Tags {
		if strings.HasPrefix(t, "docker-archive:") {
			return fmt.Errorf("tag %s: a docker archive cannot hold images of several platforms: use oci-archive: %w", t, define.ErrInvalid)
		}
	}
	return nil
}

// planBuilds makes a build for each platform, ready to execute: what can be
// known to fail fails here, before any step is executed.
func (r *run) planBuilds(ctx context.Context, o Options) ([]*build, error) {
	if o.AllPlatforms {
		platforms, err := r.commonPlatforms(ctx, o)
		if err != nil {
			return nil, err
		}
		if o.Platforms = platforms; len(platforms) > 1 {
			if err := checkListOutputs(&o); err != nil {
				return nil, err
			}
		}
	}
	platforms := o.Platforms
	if len(platforms) == 0 {
		platforms = []define.Platform{o.platform()}
	}
	list, err := o.listOfOne()
	if err != nil {
		return nil, err
	}
	if o.Manifest != "" && len(platforms) == 1 && !list {
		if err := r.checkList(o.Manifest); err != nil {
			return nil, err
		}
	}
	var builds []*build
	for _, p := range platforms {
		b := &build{run: r, opts: o}
		b.opts.Platforms = []define.Platform{p}
		if len(platforms) > 1 || list {
			b.label = define.FormatPlatform(p)
		}
		if err := b.plan(); err != nil {
			return nil, err
		}
		if err := b.checkRuns(ctx); err != nil {
			return nil, err
		}
		builds = append(builds, b)
	}
	return builds, nil
}

// listOfOne reports the wish for a list although there is one platform only.
func (o *Options) listOfOne() (bool, error) {
	const name = "BUILDKIT_MULTI_PLATFORM"
	text := o.BuildArgs[name]
	if text == "" {
		return false, nil
	}
	list, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("build argument %s=%q: want true or false: %w", name, text, define.ErrInvalid)
	}
	if list {
		err = checkListOutputs(o)
	}
	return list, err
}

// checkList refuses to add to what is not a list, before anything is built.
func (r *run) checkList(name string) error {
	full, err := transport.NormalizeTag(name)
	if err != nil {
		return err
	}
	local, err := r.engine.Transport().FindEntry(full)
	if errors.Is(err, define.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = manifest.Open(r.engine.Store(), local.ID)
	return err
}

// checkRuns refuses RUN instructions for platforms whose programs this
// machine cannot execute.
func (b *build) checkRuns(ctx context.Context) error {
	for _, i := range b.graph.Needed {
		def := &b.file.Stages[i]
		at := slices.IndexFunc(def.Instructions, func(in containerfile.Instruction) bool { return in.Keyword == "RUN" })
		if at < 0 {
			continue
		}
		p, err := b.stagePlatform(i)
		if err != nil {
			continue // the stage says so, with its place
		}
		if err := b.engine.CanRun(ctx, p); err != nil {
			in := &def.Instructions[at]
			return &InstructionError{File: in.File, Line: in.Line, Instruction: in.Text, Err: err}
		}
	}
	return nil
}

// stagePlatform is the platform that a stage is built for: its own, else its
// base stage's, else the target's.
func (b *build) stagePlatform(i int) (define.Platform, error) {
	for {
		if base, ok := b.graph.BaseStage[i]; ok {
			i = base
			continue
		}
		return b.ownPlatform(&b.file.Stages[i])
	}
}

func (b *build) ownPlatform(def *containerfile.Stage) (define.Platform, error) {
	if def.Platform == "" {
		return b.opts.platform(), nil
	}
	word, err := b.global.Expand(def.Platform)
	if err != nil {
		return define.Platform{}, err
	}
	return define.ParsePlatform(word)
}

// stageLabel is the platform that events of a stage carry; "" when the run
// has one only.
func (b *build) stageLabel(i int) string {
	if b.label == "" {
		return ""
	}
	p, err := b.stagePlatform(i)
	if err != nil {
		return b.label
	}
	return define.FormatPlatform(p)
}

// stageKeys says of each stage what, besides the file, its result depends on:
// stages of two platforms with the same key are the same. "" is a stage that
// must not be shared: one that is not needed, or the target, whose container
// becomes the image.
func (b *build) stageKeys() []string {
	keys := make([]string, len(b.file.Stages))
	for _, i := range b.graph.Needed {
		if i != b.graph.Target {
			keys[i] = b.stageKey(i, keys)
		}
	}
	return keys
}

func (b *build) stageKey(i int, keys []string) string {
	p, err := b.stagePlatform(i)
	if err != nil {
		return ""
	}
	parts := []string{fmt.Sprint(i), define.FormatPlatform(p), b.graph.Bases[i]}
	for _, d := range b.graph.Deps[i] {
		if keys[d] == "" {
			return ""
		}
		parts = append(parts, keys[d])
	}
	for _, in := range b.file.Stages[i].Instructions {
		cmd, ok := in.Command.(*instructions.ArgCommand)
		if !ok {
			continue
		}
		for _, a := range cmd.Args {
			v, _ := b.global.Lookup(a.Key)
			parts = append(parts, a.Key+"="+v)
		}
	}
	return fmt.Sprintf("%q", parts)
}

// checkTrigger refuses what a base image may make a shared stage depend on,
// which was not known when it was found to be the same for all platforms.
func (s *stage) checkTrigger(in containerfile.Instruction) error {
	if !s.shared || in.Keyword != "ARG" && !strings.Contains(in.Text, "from=") {
		return nil
	}
	return fmt.Errorf("%s:%d: the base image's ONBUILD %s may differ between the platforms: build them one by one: %w",
		in.File, in.Line, in.Text, define.ErrUnsupported)
}

// commonPlatforms are the platforms that all base images of the stages have.
func (r *run) commonPlatforms(ctx context.Context, o Options) ([]define.Platform, error) {
	b := &build{run: r, opts: o}
	if err := b.plan(); err != nil {
		return nil, err
	}
	var common []define.Platform
	asked := map[string]bool{}
	for _, i := range b.graph.Needed {
		base := b.graph.Bases[i]
		if _, ok := b.graph.BaseStage[i]; ok || base == "scratch" || base == "" || r.file.Stages[i].Platform != "" || asked[base] {
			continue
		}
		if c, ok := r.contexts.find(base); ok {
			name, image, err := c.image()
			if err != nil {
				return nil, err
			}
			if !image {
				continue
			}
			base = name
		}
		has, err := r.engine.Transport().Platforms(ctx, base, o.Pull)
		if err != nil {
			return nil, err
		}
		if len(asked) > 0 {
			has = slices.DeleteFunc(common, func(p define.Platform) bool {
				return !slices.ContainsFunc(has, func(q define.Platform) bool { return define.FormatPlatform(p) == define.FormatPlatform(q) })
			})
		}
		common = has
		asked[base] = true
	}
	switch {
	case len(asked) == 0:
		return nil, fmt.Errorf("all platforms were asked for, but no stage begins with an image that could tell which: name them with --platform: %w", define.ErrInvalid)
	case len(common) == 0:
		return nil, fmt.Errorf("the base images have no platform in common: name the platforms with --platform: %w", define.ErrInvalid)
	}
	return common, nil
}
