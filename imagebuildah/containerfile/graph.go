package containerfile

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/stratabuild/strata/define"
)

// Graph is the part of a File that a target needs.
type Graph struct {
	Target int
	// Needed are stage indices in ascending order; Target is the last.
	Needed []int
	// Deps maps a stage to the stages it waits for.
	Deps map[int][]int
	// Bases are the expanded base names of the stages needed: an image, or
	// the name of a stage, which is then among Deps.
	Bases map[int]string
	// BaseStage is the stage that a needed stage begins with, when its base
	// is one.
	BaseStage map[int]int
}

// Graph finds, for the target (a name, an index, or "" for the last stage),
// the stages that it needs, each with the stages it depends on: FROM, COPY
// --from and RUN --mount from. Triggers of base images are not known here.
// Unknown targets are errors that name the nearest and wrap
// define.ErrNotFound. expand expands FROM's base with the global arguments;
// nil expands nothing. A stage that a build context of its name replaces has
// no dependencies.
func (f *File) Graph(target string, expand func(word string) (string, error)) (*Graph, error) {
	return f.graph(target, expand, false)
}

// GraphOfAll is Graph, with the stages before the target that it does not
// need among those needed.
func (f *File) GraphOfAll(target string, expand func(word string) (string, error)) (*Graph, error) {
	return f.graph(target, expand, true)
}

func (f *File) graph(target string, expand func(string) (string, error), all bool) (*Graph, error) {
	t := len(f.Stages) - 1
	if target != "" {
		var ok bool
		if t, ok = f.StageByName(target, len(f.Stages)); !ok {
			return nil, f.unknownTarget(target)
		}
	}
	g := &Graph{Target: t, Deps: map[int][]int{}, Bases: map[int]string{}, BaseStage: map[int]int{}}
	// Dependencies have lower numbers, so one pass downwards meets all.
	needed := make([]bool, len(f.Stages))
	needed[t] = true
	for i := t; i >= 0; i-- {
		if needed[i] = needed[i] || all; !needed[i] {
			continue
		}
		deps, err := f.deps(g, i, expand)
		if err != nil {
			return nil, err
		}
		for _, d := range deps {
			needed[d] = true
		}
		g.Deps[i] = deps
	}
	var inherited Inherited
	for i, n := range needed {
		if !n {
			continue
		}
		g.Needed = append(g.Needed, i)
		base, ok := g.BaseStage[i]
		if !ok {
			base = -1
		}
		if err := inherited.Add(&f.Stages[i], base); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// deps returns the stages that stage i waits for, ascending, and notes its
// base in g.
func (f *File) deps(g *Graph, i int, expand func(string) (string, error)) ([]int, error) {
	s := &f.Stages[i]
	if s.Name != "" && f.contexts[s.Name] {
		g.Bases[i] = s.Name
		return nil, nil
	}
	base := s.Base
	if expand != nil {
		var err error
		if base, err = expand(base); err != nil {
			return nil, s.From.wrap(err)
		}
	}
	if base == "" {
		return nil, s.From.Errorf("the base %s is empty after expansion; declare its argument before the first FROM, with a default", quoteWord(s.Base))
	}
	g.Bases[i] = base
	found := map[int]bool{}
	// A number is an image's name here, never a stage's index.
	if _, number := stageIndex(base); !number {
		if d, ok := f.StageByName(base, i); ok {
			found[d] = true
			g.BaseStage[i] = d
		}
	}
	if d, ok := f.StageByName(s.After, i); ok {
		found[d] = true
	}
	for _, ins := range s.Instructions {
		for _, from := range sources(ins) {
			if f.contexts[strings.ToLower(from)] {
				continue
			}
			if d, ok := f.StageByName(from, i); ok {
				found[d] = true
			}
		}
	}
	deps := make([]int, 0, len(found))
	for d := range found {
		deps = append(deps, d)
	}
	sort.Ints(deps)
	return deps, nil
}

// sources returns what COPY --from and RUN --mount=from name, as written.
func sources(ins Instruction) []string {
	switch c := ins.Command.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		var names []string
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				names = append(names, m.From)
			}
		}
		return names
	}
	return nil
}

// checkSources refuses a source that is a later stage, the stage itself, a
// number that no earlier stage has, or a likely misspelling.
func (f *File) checkSources(stage int, ins Instruction) error {
	for _, from := range sources(ins) {
		if f.contexts[strings.ToLower(from)] {
			continue
		}
		if _, ok := f.StageByName(from, stage); ok {
			continue
		}
		if n, number := stageIndex(from); number {
			if stage == 0 {
				return ins.Errorf("from=%s: no stage comes before this one", quoteWord(from))
			}
			if n == stage {
				return ins.Errorf("from=%s is this stage itself; a stage can only use earlier ones", quoteWord(from))
			}
			return ins.Errorf("from=%s: the stages before this one are 0 to %d", quoteWord(from), stage-1)
		}
		if at, ok := f.StageByName(from, len(f.Stages)); ok {
			if at == stage {
				return ins.Errorf("from=%s is this stage itself; a stage can only use earlier ones", quoteWord(from))
			}
			return ins.Errorf("from=%s is a later stage (line %d); a stage can only use earlier ones", quoteWord(from), f.Stages[at].From.Line)
		}
		if near := f.misspelt(from, stage); near != "" {
			return ins.Errorf("from=%s is no earlier stage; did you mean %s?", quoteWord(from), near)
		}
	}
	return nil
}

// maxGuess is the number of stages up to which misspellings are looked for:
// the search costs the product of stages and sources.
const maxGuess = 200

// misspelt returns the earlier stage that from was probably meant to be. Any
// name may be an image, so the test is strict: a bare word that no stage
// begins with (an image that the file uses is no slip), and one slip in five
// letters or two in nine. Writing a tag or registry always means the image.
func (f *File) misspelt(from string, before int) string {
	if strings.ContainsAny(from, "/:@.") || len(from) < 5 || len(f.Stages) > maxGuess {
		return ""
	}
	var names []string
	for i := range f.Stages {
		base, _, _ := strings.Cut(f.Stages[i].Base, ":")
		if strings.EqualFold(base, from) {
			return ""
		}
		if i < before {
			names = append(names, f.Stages[i].Name)
		}
	}
	limit := 1
	if len(from) >= 9 {
		limit = 2
	}
	return nearestWithin(from, names, limit)
}

func (f *File) unknownTarget(target string) error {
	var names []string
	for i := range f.Stages {
		if f.Stages[i].Name != "" {
			names = append(names, f.Stages[i].Name)
		}
	}
	text := fmt.Sprintf("%s: no stage %s", f.Name, quoteWord(target))
	if near := nearest(target, names); near != "" {
		text += "; did you mean " + near + "?"
	} else if len(names) > 0 && len(names) <= 20 {
		text += "; the stages are " + strings.Join(names, ", ")
	} else {
		text += fmt.Sprintf("; the stages are 0 to %d", len(f.Stages)-1)
	}
	return &notFound{errors.New(text)}
}

// notFound is a define.ErrNotFound without its words in the text.
type notFound struct{ error }

func (e *notFound) Is(target error) bool { return target == define.ErrNotFound }
