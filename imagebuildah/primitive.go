package imagebuildah

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/buildcontext"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
	"github.com/stratabuild/strata/imagebuildah/expand"
)

// StepOptions is what Copy and Run have in common.
//
// Without Cached the changes stay open in the container, and the caller ends
// with c.Keep (so that several steps of one process share one working root)
// and, if something of c.Image was changed, c.Save. Events of steps are not
// reported: what a command prints is its result.
//
// With Cached the step is looked up under the key that the same instruction
// of a build would have, executed when it is not found, and recorded. Open
// changes become a layer before (c.Layered), the step makes a layer of its
// own with an entry in the history, and the caller ends with c.Save alone. A
// step that fails leaves no change. Its events are those of a build:
// EventStepCached, or EventStepStart and EventStepDone.
type StepOptions struct {
	Cached bool
	// NoCache with Cached executes in any case, and records.
	NoCache bool
	// Explain with Cached reports why the step was executed or not
	// (EventExplain).
	Explain bool
	// AddHistory without Cached adds an entry to c.Image.History: an empty
	// one, since the changes are of the layer that the commit makes.
	AddHistory bool
	// Script names what the step is a part of, such as the absolute path of a
	// shell script, so that --explain compares with the step at the same place
	// in an earlier run; "" is the container's name.
	Script string
	// Timestamp is the modification time of all that Copy writes and, with
	// Cached, of all files of the layer.
	Timestamp *time.Time
	// SourceDateEpoch with Cached lowers later times of the layer's files.
	SourceDateEpoch *time.Time
	// Pull says how an image named by --from is fetched.
	Pull define.PullPolicy
	// TempDir is where downloads lie; "": TMPDIR, else /var/tmp.
	TempDir string
}

// primitive executes single instructions on a container, as a build of one
// stage that goes on with it.
type primitive struct {
	b *build
	s *stage
	o StepOptions
}

// newPrimitive prepares one step; files of the host are those of source. The
// caller closes it.
func newPrimitive(ctx context.Context, c *builder.Container, o StepOptions, source *buildcontext.Context) (*primitive, error) {
	layers := o.Cached
	b := &build{run: &run{}, opts: Options{Layers: &layers, NoCache: o.NoCache, Explain: o.Explain, Timestamp: o.Timestamp, SourceDateEpoch: o.SourceDateEpoch,
		Pull: o.Pull, Platforms: []define.Platform{c.Image.Platform}, Context: buildcontext.Options{TempDir: o.TempDir}}}
	b.engine, b.context, b.outer = c.Engine(), source, ctx
	b.file, b.graph = &containerfile.File{}, &containerfile.Graph{}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.space = b.engine.NewSpace(ctx)
	b.slots = make(chan struct{}, 1)
	b.global = expand.NewGlobal(nil, c.Image.Platform, define.HostPlatform(), "")
	p := &primitive{b: b, o: o}
	p.s = &stage{b: b, def: &containerfile.Stage{Name: c.Base.Name}, c: c, adopted: true, of: 1}
	p.s.begin()
	if o.Cached {
		if err := p.layered(ctx); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// layered prepares the container for steps that are layers of their own.
func (p *primitive) layered(ctx context.Context) (err error) {
	s, b := p.s, p.b
	sum := sha256.Sum256([]byte("primitive\x00" + p.o.Script + "\x00" + s.c.Base.Name))
	b.identity = hex.EncodeToString(sum[:16])
	if b.index, err = b.engine.Cache().Index(ctx, b.identity); err != nil {
		return err
	}
	if s.c.ID() != "" {
		err = s.c.Layered(ctx, b.freezeOptions())
	} else {
		_, err = s.c.Seal(ctx, b.freezeOptions())
	}
	if err != nil {
		return err
	}
	s.n = s.c.Top().Depth()
	if s.c.Top() == nil {
		return nil
	}
	info, err := s.c.Top().Wait(ctx)
	s.top = info.ID
	return err
}

// withContainers opens the working containers among what --from names while f
// runs. A name that no container has is an image's.
func (p *primitive) withContainers(ctx context.Context, names []string, f func() error) error {
	if len(names) == 0 {
		return f()
	}
	name, rest := names[0], func() error { return p.withContainers(ctx, names[1:], f) }
	if p.b.roots[name] != nil || name == "" {
		return rest()
	}
	c := p.s.c
	if !isContainer(c, name) {
		var err error
		c, err = p.b.engine.OpenContainer(ctx, name)
		if errors.Is(err, define.ErrNotFound) {
			return rest()
		}
		if err != nil {
			return fmt.Errorf("--from=%s: %w", name, err)
		}
		if !isContainer(c, name) {
			// A few letters that an ID happens to begin with.
			return errors.Join(c.Close(), rest())
		}
	}
	err := c.View(ctx, func(root *copier.Root) error {
		if p.b.roots == nil {
			p.b.roots = map[string]*copier.Root{}
		}
		p.b.roots[name] = root
		return rest()
	})
	if c != p.s.c {
		err = errors.Join(err, c.Close())
	}
	return err
}

// isContainer reports whether a stored container is meant by a name: its
// whole one, or at least twelve digits of the ID.
func isContainer(c *builder.Container, name string) bool {
	return c.ID() != "" && (name == c.Name() || len(name) >= 12 && strings.HasPrefix(c.ID(), name))
}

// settle ends a step of the cache's: its record is written, and the container
// stands on its layer.
func (p *primitive) settle(ctx context.Context, err error) error {
	p.b.running.Wait()
	if err == nil {
		err = context.Cause(p.b.ctx)
	}
	if err != nil {
		return errors.Join(err, p.s.c.Rollback())
	}
	return p.s.materialize(ctx)
}

func (p *primitive) close() error {
	p.b.cancel(nil)
	var err error
	if p.b.index != nil {
		err = p.b.index.Flush()
	}
	return errors.Join(err, p.b.space.Close())
}

// history records a step that is not the cache's.
func (p *primitive) history(createdBy string) {
	if p.o.AddHistory {
		now := time.Now().UTC()
		p.s.addHistory(createdBy, &now, true)
	}
}

// instruction stands for the line of a build file.
func (p *primitive) instruction(keyword, text string) *containerfile.Instruction {
	return &containerfile.Instruction{Keyword: keyword, Text: keyword + " " + text}
}

// hostSources opens what relative and absolute names of the host are below.
// With a context folder all names are relative to it; else the root is the
// host's, and relative names are those of the working folder.
func hostSources(dir, ignoreFile string, names []string) (*buildcontext.Context, []string, error) {
	if dir != "" {
		c, err := buildcontext.OpenFolder(dir, buildcontext.FolderOptions{IgnoreFile: ignoreFile})
		return c, names, err
	}
	full := make([]string, len(names))
	for i, n := range names {
		if full[i] = n; filepath.IsAbs(n) {
			continue
		}
		wd, err := os.Getwd()
		if err != nil {
			return nil, nil, err
		}
		// What lies above is no part of what --parents keeps.
		pivot := "/./"
		if strings.Contains(n, "/./") {
			pivot = "/"
		}
		full[i] = Literal(wd) + pivot + n
	}
	c, err := buildcontext.OpenFolder("/", buildcontext.FolderOptions{All: true, IgnoreFile: ignoreFile})
	return c, full, err
}

// Literal writes a file's name as a pattern that matches nothing else.
func Literal(path string) string {
	return strings.NewReplacer(`\`, `[\\]`, `*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}
