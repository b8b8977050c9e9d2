package buildcontext

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/stratabuild/strata/define"
)

// GitURL is a parsed git location.
type GitURL struct {
	// Remote is what git fetches from, without user and password for http(s).
	Remote string
	// Ref is a branch, a tag, a full ref or a commit; "" is the remote's HEAD.
	Ref string
	// Subdir is the folder in the repository that is the context, clean,
	// relative, "" for all of it.
	Subdir string
	// Checksum is the commit, or its beginning, that the ref must have.
	Checksum string
	// Submodules says whether submodules are fetched.
	Submodules bool
	// KeepGitDir is the query's keep-git-dir; nil when it is not given.
	KeepGitDir *bool

	user  *url.Userinfo // http(s) credentials
	local bool          // a path or file:// of this machine
}

// errNoGit marks what is no git location at all, as opposed to a bad one.
var errNoGit = errors.New("not a git URL")

// IsGitURL reports whether a location names a git repository: git://, ssh://
// or file:// URLs, user@host:path, http(s) URLs whose path ends in .git,
// github.com/..., and local paths path.git#ref. Malformed ones count.
func IsGitURL(s string) bool {
	_, err := ParseGitURL(s)
	return !errors.Is(err, errNoGit)
}

var (
	scpLike = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([A-Za-z0-9_.-]+)@([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(.+)$`)
	})
	commitHex = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{4,64}$`) })
)

// ParseGitURL reads a git location with its fragment #ref[:subdir], or the
// query keys ref, branch, tag, subdir, checksum, commit, submodules and
// keep-git-dir. Nothing in it can become an option of git or ssh.
func ParseGitURL(s string) (*GitURL, error) {
	location, fragment, hasFragment := strings.Cut(s, "#")
	g := &GitURL{Submodules: true}
	var query url.Values
	lower := strings.ToLower(location)
	switch {
	case strings.HasPrefix(lower, "git://"), strings.HasPrefix(lower, "ssh://"), strings.HasPrefix(lower, "file://"), isHTTP(lower):
		u, err := url.Parse(location)
		if err != nil {
			if isHTTP(lower) && !strings.HasSuffix(strings.Split(lower, "?")[0], ".git") {
				return nil, errNoGit
			}
			return nil, fmt.Errorf("malformed git URL %s: %w", displayURL(location), define.ErrInvalid)
		}
		if isHTTP(lower) && !strings.HasSuffix(u.Path, ".git") {
			return nil, errNoGit
		}
		if query, err = url.ParseQuery(u.RawQuery); err != nil {
			return nil, fmt.Errorf("git URL %s: malformed query: %w", displayURL(location), define.ErrInvalid)
		}
		if err := g.setURL(u); err != nil {
			return nil, err
		}
	case strings.HasPrefix(lower, "github.com/") && len(lower) > len("github.com/"):
		g.Remote = "https://" + location
	case scpLike().MatchString(location):
		m := scpLike().FindStringSubmatch(location)
		for _, part := range m[1:] {
			if strings.HasPrefix(part, "-") {
				return nil, fmt.Errorf("git location %s: no part may begin with a dash: %w", oneLine(location), define.ErrInvalid)
			}
		}
		g.Remote = location
	case hasFragment && strings.HasSuffix(location, ".git") && !strings.Contains(location, "://"):
		if strings.HasPrefix(location, "-") {
			return nil, fmt.Errorf("git location %s: write ./%s: %w", oneLine(location), oneLine(location), define.ErrInvalid)
		}
		g.Remote, g.local = location, true
	default:
		return nil, errNoGit
	}
	if strings.ContainsFunc(g.Remote, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("git location %q: it holds a blank or control character: %w", g.Remote, define.ErrInvalid)
	}
	if hasFragment {
		g.Ref, g.Subdir, _ = strings.Cut(fragment, ":")
	}
	if err := g.setQuery(query); err != nil {
		return nil, fmt.Errorf("git URL %s: %w: %w", g.Display(), err, define.ErrInvalid)
	}
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("git URL %s: %w: %w", g.Display(), err, define.ErrInvalid)
	}
	return g, nil
}

// setURL takes the remote from a URL.
func (g *GitURL) setURL(u *url.URL) error {
	scheme := strings.ToLower(u.Scheme)
	host := u.Hostname()
	if scheme == "file" {
		if u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/") {
			return fmt.Errorf("git URL %s: want file:///absolute/path: %w", displayURL(u.String()), define.ErrInvalid)
		}
		g.local = true
	} else if host == "" || strings.HasPrefix(host, "-") || u.User != nil && strings.HasPrefix(u.User.Username(), "-") {
		return fmt.Errorf("git URL %s: the host is missing or begins with a dash: %w", displayURL(u.String()), define.ErrInvalid)
	}
	if u.Path == "" || u.Path == "/" {
		return fmt.Errorf("git URL %s: the path of the repository is missing: %w", displayURL(u.String()), define.ErrInvalid)
	}
	clean := *u
	clean.RawQuery, clean.Fragment, clean.ForceQuery = "", "", false
	switch scheme {
	case "http", "https":
		g.user, clean.User = u.User, nil
	case "ssh":
		if u.User != nil { // ssh has no use for a password
			clean.User = url.User(u.User.Username())
		}
	default:
		clean.User = nil
	}
	g.Remote = clean.String()
	return nil
}

// setQuery applies the query form; each key may come once.
func (g *GitURL) setQuery(query url.Values) error {
	refs := 0
	for key, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("the query has %s more than once", oneLine(key))
		}
		value := values[0]
		var err error
		switch key {
		case "ref", "branch", "tag":
			if refs++; refs > 1 || g.Ref != "" {
				return errors.New("several refs; give one of ref, branch, tag or #ref")
			}
			g.Ref = map[string]string{"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}[key] + value
		case "subdir":
			if g.Subdir != "" {
				return errors.New("two subdirectories; give subdir or #ref:subdir")
			}
			g.Subdir = value
		case "checksum", "commit":
			if g.Checksum != "" && g.Checksum != value {
				return errors.New("checksum and commit differ")
			}
			g.Checksum = value
		case "submodules":
			g.Submodules, err = queryBool(value)
		case "keep-git-dir":
			var keep bool
			keep, err = queryBool(value)
			g.KeepGitDir = &keep
		default:
			return fmt.Errorf("unknown query key %s; known are ref, branch, tag, subdir, checksum, commit, submodules and keep-git-dir", oneLine(key))
		}
		if err != nil {
			return fmt.Errorf("query key %s: want true or false", key)
		}
	}
	return nil
}

func queryBool(value string) (bool, error) {
	if value == "" {
		return true, nil // "?submodules"
	}
	return strconv.ParseBool(value)
}

// check refuses refs that git would read as something else, and folders
// outside of the repository.
func (g *GitURL) check() error {
	if g.Ref != "" && !validRef(g.Ref) {
		return fmt.Errorf("%s is no name of a branch, tag or commit", oneLine(g.Ref))
	}
	if g.Checksum != "" && !commitHex().MatchString(g.Checksum) {
		return fmt.Errorf("checksum %s: want a commit in hex digits", oneLine(g.Checksum))
	}
	if strings.IndexByte(g.Subdir, 0) >= 0 {
		return errors.New("the subdirectory holds a NUL byte")
	}
	for _, part := range strings.Split(g.Subdir, "/") {
		if part == ".." {
			return fmt.Errorf("subdirectory %s: \"..\" is not allowed", oneLine(g.Subdir))
		}
	}
	g.Subdir = strings.TrimPrefix(path.Clean("/"+g.Subdir), "/")
	return nil
}

// validRef follows git-check-ref-format(1), and refuses a leading dash (an
// option) or plus (a forced refspec).
func validRef(ref string) bool {
	if len(ref) > 1024 || strings.ContainsAny(ref[:1], "-+/@") || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") ||
		strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.Contains(ref, "//") ||
		strings.ContainsFunc(ref, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return false
	}
	for _, part := range strings.Split(ref, "/") {
		if strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// Display is the location for messages, without credentials.
func (g *GitURL) Display() string {
	s := g.Remote
	if strings.Contains(s, "://") {
		s = displayURL(s)
	}
	if g.Ref != "" || g.Subdir != "" {
		s += "#" + g.Ref
	}
	if g.Subdir != "" {
		s += ":" + g.Subdir
	}
	return oneLine(s)
}

// oneLine escapes what would break a line or a terminal.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' }) {
		return clipAt(s, 200)
	}
	return strconv.QuoteToASCII(clipAt(s, 200))
}
