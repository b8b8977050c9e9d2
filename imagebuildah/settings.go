package imagebuildah

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// Settings are what flags say about the settings of images.
type Settings struct {
	// Env are variables ("key=value") of every stage that begins with an
	// image: its instructions see them, and ENV replaces them.
	Env []string
	// UnsetEnv, UnsetLabels and UnsetAnnotations name what the image is to be
	// without, whoever set it; Options.Labels and Annotations come after.
	UnsetEnv, UnsetLabels, UnsetAnnotations []string
	// DropLabels and DropAnnotations make stages begin without those of what
	// they begin with, image or stage.
	DropLabels, DropAnnotations bool
	// OmitHistory leaves the history out of the image.
	OmitHistory bool
	// CreatedAnnotation adds the image's time of creation as annotation, too.
	CreatedAnnotation bool
	// OSVersion is the version of the system that the image needs, of windows
	// mostly; OSFeatures are features that it needs ("win32k"), or, with a -
	// behind, does not need although its base does.
	OSVersion  string
	OSFeatures []string
}

func (o *Settings) check() error {
	for _, kv := range o.Env {
		if k, _, ok := strings.Cut(kv, "="); k == "" || !ok {
			return fmt.Errorf("variable %q: want name=value: %w", kv, define.ErrInvalid)
		}
	}
	for _, f := range o.OSFeatures {
		if strings.TrimSuffix(f, "-") == "" {
			return fmt.Errorf("feature %q of an operating system: want a name: %w", f, define.ErrInvalid)
		}
	}
	return nil
}

// inherit drops what the stage is not to have of what it begins with.
func (s *stage) inherit() {
	o := &s.b.opts.Settings
	if o.DropLabels {
		s.c.Image.Config.Labels = nil
	}
	if o.DropAnnotations {
		s.c.Image.Annotations = nil
	}
}

// setEnv gives a stage that begins with an image the variables of all stages.
func (s *stage) setEnv() {
	for _, kv := range s.b.opts.Settings.Env {
		k, v, _ := strings.Cut(kv, "=")
		s.c.Image.SetEnv(k, v)
	}
}

// unset takes away what the image is to be without.
func (o *Settings) unset(i *image.Image) {
	i.Config.Env = slices.DeleteFunc(i.Config.Env, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(o.UnsetEnv, k)
	})
	for _, k := range o.UnsetLabels {
		delete(i.Config.Labels, k)
	}
	for _, k := range o.UnsetAnnotations {
		delete(i.Annotations, k)
	}
	i.OmitHistory = o.OmitHistory
	if o.OSVersion != "" {
		i.Platform.OSVersion = o.OSVersion
	}
	i.Platform.OSFeatures = slices.Clone(i.Platform.OSFeatures)
	for _, f := range o.OSFeatures {
		name, drop := strings.CutSuffix(f, "-")
		at := slices.Index(i.Platform.OSFeatures, name)
		switch {
		case drop && at >= 0:
			i.Platform.OSFeatures = slices.Delete(i.Platform.OSFeatures, at, at+1)
		case !drop && at < 0:
			i.Platform.OSFeatures = append(i.Platform.OSFeatures, name)
		}
	}
}

// noteCreated annotates the image with its time, unless a flag did.
func (b *build) noteCreated(s *stage, created time.Time) {
	given := func(kv string) bool { return strings.HasPrefix(kv, v1.AnnotationCreated+"=") }
	if b.opts.Settings.CreatedAnnotation && !slices.ContainsFunc(b.opts.Annotations, given) {
		annotate(s, v1.AnnotationCreated, created.Format(time.RFC3339Nano))
	}
}

// created is the time that the image will have: that of the newest entry of
// its dated history, unless it is fixed.
func (s *stage) created() time.Time {
	if t := s.b.opts.fixedTime(); t != nil {
		return *t
	}
	t := time.Unix(0, 0).UTC()
	for _, h := range s.c.Image.History {
		if h.Created != nil && h.Created.After(t) {
			t = h.Created.UTC()
		}
	}
	return t
}

// replaceBase makes the first FROM begin with another image (Options.From).
func replaceBase(file *containerfile.File, from string) error {
	switch {
	case from == "" || len(file.Stages) == 0:
		return nil
	case strings.ContainsAny(from, "$\\` \t\r\n\x00"):
		return fmt.Errorf("base image %q: want the name of an image: %w", from, define.ErrInvalid)
	}
	s := &file.Stages[0]
	text := "FROM "
	if s.Platform != "" {
		text += "--platform=" + s.Platform + " "
	}
	text += from
	if s.Name != "" {
		text += " AS " + s.Name
	}
	s.Base, s.From.Text = from, text
	return nil
}

// neverCached reports that the stage's steps are executed although their
// results are known.
func (s *stage) neverCached() bool {
	o := &s.b.opts
	if o.NoCache {
		return true
	}
	return slices.ContainsFunc(o.NoCacheStages, func(name string) bool {
		return s.def.Name != "" && strings.EqualFold(name, s.def.Name) || name == strconv.Itoa(s.def.Index)
	})
}

// expired reports that a recorded result is older than Options.CacheTTL.
func (s *stage) expired(r *cache.Result) bool {
	ttl := s.b.opts.CacheTTL
	if ttl == nil {
		return false
	}
	made := r.Created
	if r.Layer != "" {
		// Options.Timestamp sets the other time.
		if l, err := s.b.engine.Store().Layer(string(r.Layer)); err == nil {
			made = l.Created
		}
	}
	return time.Since(made) >= *ttl
}

// checkStageNames warns about stages that Options name and the file has not.
func (r *run) checkStageNames(names []string) {
	for _, name := range names {
		if _, ok := r.file.StageByName(name, len(r.file.Stages)); !ok {
			r.warn(fmt.Sprintf("no stage is called %q: nothing is kept from the cache for its sake", name))
		}
	}
}
