package buildcontext

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/moby/patternmatcher"

	"github.com/stratabuild/strata/define"
)

// Limits of an ignore file beside its size.
const (
	maxPatterns = 10_000
	maxPattern  = 64 << 10 // bytes; what Docker's reader takes
	// A match costs the product of the path's length and the size of the
	// regular expression, which grows with the wildcards.
	maxWild      = 4 << 10 // bytes of a pattern with wildcards: the longest path
	maxWildcards = 32
	// cachedResults bounds the memory for results of folders: one byte for
	// each pattern and folder.
	cachedResults = 16 << 20
)

// Ignore matches paths as Docker does (moby/patternmatcher). It is safe for
// concurrent use.
type Ignore struct {
	name     string
	patterns []pattern
	negated  bool

	mu sync.RWMutex
	// folders holds, for folders seen as parents, which patterns matched
	// them: a pattern that matches a folder holds for all below it.
	folders map[string][]bool
}

// pattern is one line.
type pattern struct {
	line    int
	text    string // cleaned
	negated bool
	// literal is the text before the first character with a meaning; a path
	// that the pattern matches begins with it. exact is set when that is all.
	literal string
	exact   bool
	one     *patternmatcher.PatternMatcher
}

// ParseIgnore reads an ignore file; malformed lines are errors with their
// line number, never a panic.
func ParseIgnore(name string, content []byte) (*Ignore, error) {
	i := &Ignore{name: name, folders: map[string][]bool{}}
	if len(content) > MaxIgnoreFile {
		return nil, fmt.Errorf("%s: larger than %d MiB; use fewer, wider patterns: %w", name, MaxIgnoreFile>>20, define.ErrInvalid)
	}
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	for n, line := range bytes.Split(content, []byte("\n")) {
		p, err := parsePattern(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w: %w", name, n+1, err, define.ErrInvalid)
		}
		if p == nil {
			continue
		}
		p.line = n + 1
		i.negated = i.negated || p.negated
		i.patterns = append(i.patterns, *p)
		if len(i.patterns) > maxPatterns {
			return nil, fmt.Errorf("%s:%d: more than %d patterns; use fewer, wider ones: %w", name, n+1, maxPatterns, define.ErrInvalid)
		}
	}
	return i, nil
}

// parsePattern reads one line as Docker's reader does; nil means a blank or
// comment line. The order is Docker's: "#" counts in the first column only,
// "!" after trimming, and cleaning comes last.
func parsePattern(line []byte) (*pattern, error) {
	if bytes.HasPrefix(line, []byte("#")) {
		return nil, nil
	}
	text := strings.TrimSpace(string(line))
	if text == "" {
		return nil, nil
	}
	if len(text) > maxPattern {
		return nil, fmt.Errorf("a pattern of more than %d bytes", maxPattern)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errors.New("a pattern with a NUL byte")
	}
	p := &pattern{}
	if text[0] == '!' {
		p.negated = true
		if text = strings.TrimSpace(text[1:]); text == "" {
			return nil, errors.New(`"!" alone; want !pattern`)
		}
	}
	text = path.Clean(text)
	if len(text) > 1 && text[0] == '/' {
		text = text[1:]
	}
	p.text = text
	if err := p.compile(text); err != nil {
		return nil, err
	}
	return p, nil
}

// compile makes the matcher of one pattern and uses it once: the library
// compiles at first use, reports bad patterns only then, and in some versions
// panics.
func (p *pattern) compile(text string) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("bad pattern %q", clip(text))
		}
	}()
	// The library reads a "!" that is left ("!!a") as a negation, which Docker
	// passes it as well.
	if p.negated {
		text = "!" + text
	}
	probe, err := patternmatcher.New([]string{text})
	if err != nil || len(probe.Patterns()) != 1 {
		return fmt.Errorf("bad pattern %q", clip(text))
	}
	p.negated = probe.Patterns()[0].Exclusion()
	positive := probe.Patterns()[0].String()
	// "!" is a sign only at the front, and cleaning removes "./".
	if p.one, err = patternmatcher.New([]string{guardSign(positive)}); err != nil || len(p.one.Patterns()) != 1 {
		return fmt.Errorf("bad pattern %q", clip(text))
	}
	if n := strings.IndexAny(positive, `*?[]\^`); n >= 0 {
		p.literal = positive[:n]
	} else {
		p.literal, p.exact = positive, true
		return nil
	}
	if len(positive) > maxWild || strings.Count(positive, "*")+strings.Count(positive, "?") > maxWildcards {
		return fmt.Errorf("pattern %q: more than %d wildcards or %d bytes", clip(text), maxWildcards, maxWild)
	}
	// The library would print about these bytes, and never match them.
	if !utf8.ValidString(positive) {
		return fmt.Errorf("pattern %q has wildcards and is not UTF-8", clip(text))
	}
	if _, err := p.one.MatchesUsingParentResult("probe", false); err != nil { //nolint:staticcheck // see match
		return fmt.Errorf("bad pattern %q", clip(text))
	}
	return nil
}

// guardSign keeps a leading "!" of a pattern from being read as a sign.
func guardSign(positive string) string {
	if strings.HasPrefix(positive, "!") {
		return `\` + positive
	}
	return positive
}

func clip(s string) string { return clipAt(s, 80) }

func clipAt(s string, n int) string {
	if len(s) > n {
		return s[:n-3] + "..."
	}
	return s
}

// match reports whether the pattern matches exactly this path.
func (p *pattern) match(file string) (bool, error) {
	if p.exact {
		return file == p.literal, nil
	}
	if !strings.HasPrefix(file, p.literal) {
		return false, nil
	}
	// Of the library's methods this one asks the pattern about the path
	// alone; its known fault concerns lists with negations, and this list
	// has one positive pattern.
	return p.one.MatchesUsingParentResult(file, false) //nolint:staticcheck // see above
}

// Empty reports whether there are no patterns.
func (i *Ignore) Empty() bool { return len(i.patterns) == 0 }

// HidesSource reports whether a source of COPY or ADD, as written, is one that
// the ignore file leaves out (BuildKit's rule CopyIgnoredFile). Where patterns
// make exceptions it is false: a folder that is left out may hold files that
// are not. Errors of patterns were reported when the file was read.
func (i *Ignore) HidesSource(source string) bool {
	if i.Empty() || i.negated {
		return false
	}
	source = strings.TrimPrefix(path.Clean("/"+source), "/")
	if source == "" {
		for n := range i.patterns {
			switch i.patterns[n].text {
			case "*", "**", "**/*":
				return true
			}
		}
		return false
	}
	excluded, _, err := i.Excluded(source)
	return err == nil && excluded
}

// HidesSource reports whether the ignore file leaves out a source of COPY or
// ADD; see Ignore.HidesSource.
func (c *Context) HidesSource(source string) bool {
	return c.ignore != nil && c.ignore.HidesSource(source)
}

// Excluded implements copier.Matcher. The Containerfile and the ignore file
// may be excluded like any other.
func (i *Ignore) Excluded(file string) (excluded, descend bool, err error) {
	file = strings.TrimPrefix(path.Clean("/"+file), "/")
	if file == "" || len(i.patterns) == 0 {
		return false, true, nil
	}
	matched, err := i.results(path.Dir(file))
	if err != nil {
		return false, true, err
	}
	excluded, err = i.apply(file, matched, nil)
	if err != nil || !excluded {
		return false, true, err
	}
	return true, i.mayInclude(file), nil
}

// apply walks the patterns as Docker does: the last that matches decides, one
// that matched the parent holds here too, and one that could not change the
// outcome is not asked (which is visible below: it then holds for nothing
// there either). results, when not nil, receives which ones matched.
func (i *Ignore) apply(file string, parent, results []bool) (bool, error) {
	excluded := false
	for n := range i.patterns {
		p := &i.patterns[n]
		match := parent != nil && parent[n]
		if !match {
			if p.negated != excluded {
				continue
			}
			var err error
			if match, err = p.match(file); err != nil {
				return false, fmt.Errorf("%s:%d: %w", i.name, p.line, err)
			}
		}
		if results != nil {
			results[n] = match
		}
		if match {
			excluded = !p.negated
		}
	}
	return excluded, nil
}

// results returns which patterns matched a folder, nil for the root.
func (i *Ignore) results(folder string) ([]bool, error) {
	if folder == "." {
		return nil, nil
	}
	i.mu.RLock()
	known, ok := i.folders[folder]
	i.mu.RUnlock()
	if ok {
		return known, nil
	}
	parent, err := i.results(path.Dir(folder))
	if err != nil {
		return nil, err
	}
	matched := make([]bool, len(i.patterns))
	if _, err := i.apply(folder, parent, matched); err != nil {
		return nil, err
	}
	i.mu.Lock()
	if (len(i.folders)+1)*len(i.patterns) > cachedResults {
		clear(i.folders)
	}
	i.folders[folder] = matched
	i.mu.Unlock()
	return matched, nil
}

// mayInclude reports whether something below an excluded folder may be in: a
// negated pattern whose literal beginning leads into the folder.
func (i *Ignore) mayInclude(folder string) bool {
	if !i.negated {
		return false
	}
	folder += "/"
	for n := range i.patterns {
		p := &i.patterns[n]
		if !p.negated {
			continue
		}
		if strings.HasPrefix(p.literal, folder) || !p.exact && strings.HasPrefix(folder, p.literal) {
			return true
		}
	}
	return false
}
