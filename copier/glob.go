package copier

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/stratabuild/strata/copier/internal/at"
	"github.com/stratabuild/strata/define"
	"golang.org/x/sys/unix"
)

// hasWildcard reports whether a name is a pattern; a backslash takes the
// meaning of the next byte away.
func hasWildcard(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// glob lists the names below the root that match pattern, sorted. The part
// before the first wildcard may go through links, what is found behind it not
// (Docker walks the tree there).
func (w *selector) glob(pattern string) ([]string, error) {
	parts := strings.Split(pattern, "/")
	for _, p := range parts {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("source %s: malformed pattern (a literal [ is written [[]): %w", show(pattern), define.ErrInvalid)
		}
	}
	first := 0
	for !hasWildcard(parts[first]) {
		first++
	}
	prefix := strings.Join(parts[:first], "/")
	dir, err := w.root.resolver().Open(prefix, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, fail("open directory", prefix, err)
	}
	defer at.Close(dir)
	return w.globIn(nil, dir, prefix, parts[first:])
}

func (w *selector) globIn(out []string, dir int, prefix string, parts []string) ([]string, error) {
	entries, err := at.ReadDir(dir)
	if err != nil {
		return nil, fail("read directory", prefix, err)
	}
	for _, e := range entries {
		if ok, _ := path.Match(parts[0], e.Name); !ok {
			continue
		}
		name := path.Join(prefix, e.Name)
		if len(parts) == 1 {
			out = append(out, name)
			continue
		}
		if e.Type != unix.S_IFDIR && e.Type != 0 {
			continue
		}
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		sub, err := at.Open(dir, e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err == unix.ENOTDIR || err == unix.ENOENT || err == unix.ELOOP {
			continue
		}
		if err != nil {
			return nil, fail("open directory", name, err)
		}
		out, err = w.globIn(out, sub, name, parts[1:])
		at.Close(sub)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// patterns are lines of an ignore file's language.
type patterns struct {
	m *patternmatcher.PatternMatcher
}

// maxPatterns and maxPattern bound what --exclude may cost per path.
const (
	maxPatterns = 100_000
	maxPattern  = 64 << 10
)

// newPatterns compiles patterns; nil for none. The matcher panics on some
// malformed ones (moby/patternmatcher 0.6.1), so they are tried here, where
// that becomes an error.
func newPatterns(lines []string) (p *patterns, err error) {
	if len(lines) == 0 {
		return nil, nil
	}
	if len(lines) > maxPatterns {
		return nil, fmt.Errorf("%d exclude patterns, more than %d: %w", len(lines), maxPatterns, define.ErrInvalid)
	}
	for _, l := range lines {
		if err := tryPattern(l); err != nil {
			return nil, err
		}
	}
	m, err := patternmatcher.New(lines)
	if err != nil {
		return nil, fmt.Errorf("exclude patterns: %v: %w", err, define.ErrInvalid)
	}
	return &patterns{m}, nil
}

func tryPattern(line string) (err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("malformed pattern %s: %w", show(line), define.ErrInvalid)
		}
	}()
	if len(line) > maxPattern || strings.IndexByte(line, 0) >= 0 {
		return fmt.Errorf("malformed pattern %s: %w", show(line), define.ErrInvalid)
	}
	m, err := patternmatcher.New([]string{line})
	if err == nil {
		_, err = m.MatchesOrParentMatches("x/y")
	}
	if err != nil {
		return fmt.Errorf("malformed pattern %s: %v: %w", show(line), err, define.ErrInvalid)
	}
	return nil
}

// match matches a path, given the result for the directory it is in.
func (p *patterns) match(name string, parent *patternmatcher.MatchInfo) (bool, *patternmatcher.MatchInfo, error) {
	if p == nil {
		return false, nil, nil
	}
	var in patternmatcher.MatchInfo
	if parent != nil {
		in = *parent
	}
	ok, info, err := p.m.MatchesUsingParentResults(name, in)
	if err != nil {
		return false, nil, fmt.Errorf("match %s: %v: %w", show(name), err, define.ErrInvalid)
	}
	return ok, &info, nil
}

// negates reports whether a directory that matches may still hold what does
// not.
func (p *patterns) negates() bool { return p != nil && p.m.Exclusions() }
