package check

import (
	"context"
	"errors"
	"path"

	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// Options says what is asked about: the same input as a build's.
type Options struct {
	Context   buildcontext.Options
	BuildArgs map[string]string
	// Contexts are the names of additional build contexts.
	Contexts []string
	// Target is a stage's name or index; "" is the last stage, and for Lint
	// all of them.
	Target string
	// Platform is the one to build for; zero is the host's.
	Platform define.Platform
}

// Location is a place in a source: BuildKit's pb.Location. Lines count from 1.
type Location struct {
	SourceIndex int     `json:"sourceIndex,omitempty"`
	Ranges      []Range `json:"ranges,omitempty"`
}

// Range is from the beginning of one line to the end of another.
type Range struct {
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Position is a line; BuildKit gives no columns for instructions either.
type Position struct {
	Line int `json:"line,omitempty"`
}

// Source is a build file.
type Source struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

// input is an opened context with its build files.
type input struct {
	context *buildcontext.Context
	sources []containerfile.Source
	options Options
}

func open(ctx context.Context, o Options) (*input, error) {
	bc, err := buildcontext.Open(ctx, o.Context)
	if err != nil {
		return nil, err
	}
	if o.Platform.OS == "" {
		o.Platform = define.HostPlatform()
	}
	in := &input{context: bc, options: o}
	for _, f := range bc.Files {
		in.sources = append(in.sources, containerfile.Source{Name: f.Name, Content: f.Content})
	}
	return in, nil
}

func (in *input) close(err error) error { return errors.Join(err, in.context.Close()) }

func (in *input) parse() (*containerfile.File, error) {
	return containerfile.ParseFilesWith(in.sources, containerfile.Options{
		Contexts: in.options.Contexts, Check: in.options.BuildArgs["BUILDKIT_DOCKERFILE_CHECK"],
	})
}

// global makes the scope of the arguments before the first FROM.
func (in *input) global(f *containerfile.File) (*expand.Global, error) {
	target := in.options.Target
	if target == "" {
		target = f.Stages[len(f.Stages)-1].Name
	}
	g := expand.NewGlobal(in.options.BuildArgs, in.options.Platform, define.HostPlatform(), target)
	g.SetEscape(f.Escape)
	for _, ins := range f.Args {
		if err := g.DeclareAll(ins); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// location finds the place of lines first to last of a file.
func (in *input) location(file string, first, last int) *Location {
	l := &Location{}
	for i, s := range in.sources {
		if s.Name == file {
			l.SourceIndex = i
			break
		}
	}
	if first < 1 {
		return l
	}
	for n := first; n <= max(first, last); n++ {
		at := Position{Line: n}
		l.Ranges = append(l.Ranges, Range{Start: at, End: at})
	}
	return l
}

func (in *input) at(ins containerfile.Instruction) *Location {
	return in.location(ins.File, ins.Line, ins.EndLine())
}

// files are the sources as the documents hold them.
func (in *input) files() []Source {
	var list []Source
	for _, s := range in.sources {
		list = append(list, Source{Filename: path.Base(s.Name), Data: s.Content, Language: "Dockerfile"})
	}
	return list
}

func (in *input) data() [][]byte {
	var list [][]byte
	for _, s := range in.sources {
		list = append(list, s.Content)
	}
	return list
}
