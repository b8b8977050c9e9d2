package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// GitOptions says how a repository is checked out.
type GitOptions struct {
	// TempDir is where; "": TMPDIR, else /var/tmp.
	TempDir string
	// KeepGitDir leaves .git in place; the URL's own wish comes first.
	KeepGitDir bool
	// MaxBytes and MaxMembers bound what the file system loses to the
	// repository; zero is the default of the name.
	MaxBytes, MaxMembers int64
	// Secrets may hold what the server asks for.
	Secrets Secrets
}

// Repository is a checked out repository.
type Repository struct {
	// Commit in hex digits.
	Commit string
	// Name is the repository's: the last element of its path without ".git".
	Name string
	// Warnings are what the user should know.
	Warnings []string

	root *copier.Root
	temp string
}

// Root is the checked out tree, or the subdirectory of it that the URL names.
func (r *Repository) Root() *copier.Root { return r.root }

// Close removes the tree.
func (r *Repository) Close() error {
	var err error
	if r.root != nil {
		err = r.root.Close()
		r.root = nil
	}
	if r.temp != "" {
		err = errors.Join(err, removeTree(r.temp))
		r.temp = ""
	}
	return err
}

// CheckOut fetches the one commit that g names and checks it out, for a
// context or for ADD. Modes are 0644 or 0755 whatever the umask, times are
// the commit's. Needs git on the host; files of git-lfs stay pointers.
func CheckOut(ctx context.Context, g *GitURL, o GitOptions) (*Repository, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxMembers <= 0 {
		o.MaxMembers = DefaultMaxMembers
	}
	r := &Repository{Name: strings.TrimSuffix(filepath.Base(g.Remote), ".git")}
	if err := r.checkOut(ctx, g, o); err != nil {
		return nil, errors.Join(fmt.Errorf("git repository %s: %w", g.Display(), err), r.Close())
	}
	return r, nil
}

func (r *Repository) checkOut(ctx context.Context, g *GitURL, o GitOptions) error {
	binary, err := findGit()
	if err != nil {
		return err
	}
	if r.temp, err = makeTemp(o.TempDir); err != nil {
		return err
	}
	run := &gitRun{binary: binary, temp: r.temp, tree: filepath.Join(r.temp, "context"), url: g, options: o}
	if err := run.prepare(ctx); err != nil {
		return err
	}
	if warning := run.versionWarning(ctx); warning != "" {
		r.Warnings = append(r.Warnings, warning)
	}
	if r.Commit, err = run.fetch(ctx); err != nil {
		return err
	}
	if g.Checksum != "" && !strings.HasPrefix(r.Commit, g.Checksum) {
		return fmt.Errorf("%s is commit %s, not %s", refName(g.Ref), r.Commit, g.Checksum)
	}
	if _, err := run.git(ctx, "checkout", "--progress", "--detach", "--force", r.Commit, "--"); err != nil {
		return fmt.Errorf("check out %s: %w", r.Commit, err)
	}
	if _, err := os.Lstat(filepath.Join(run.tree, ".gitmodules")); err == nil && g.Submodules {
		if _, err := run.git(ctx, "submodule", "update", "--progress", "--init", "--recursive", "--depth=1"); err != nil {
			return fmt.Errorf("submodules (add ?submodules=false to leave them out): %w", err)
		}
	}
	keep := o.KeepGitDir
	if g.KeepGitDir != nil {
		keep = *g.KeepGitDir
	}
	if err := normalize(ctx, run.tree, run.commitTime(ctx, r.Commit), keep); err != nil {
		return err
	}
	r.root, err = openSubdir(run.tree, g.Subdir)
	return err
}

func refName(ref string) string {
	if ref == "" {
		return "HEAD"
	}
	return oneLine(ref)
}

// prepare makes the empty repository.
func (g *gitRun) prepare(ctx context.Context) error {
	for _, dir := range []string{g.tree, filepath.Join(g.temp, "home")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("temporary folder: %w", err)
		}
	}
	if u := g.url.user; u != nil {
		if err := g.storeCredentials(u); err != nil {
			return err
		}
	}
	if err := g.authorize(); err != nil {
		return err
	}
	if g.url.local && !strings.Contains(g.url.Remote, "://") {
		abs, err := filepath.Abs(g.url.Remote)
		if err != nil {
			return err
		}
		g.remote = "file://" + (&url.URL{Path: abs}).EscapedPath()
	} else {
		g.remote = g.url.Remote
	}
	_, err := g.git(ctx, "init", "--quiet", "--template=")
	return err
}

// storeCredentials hands user and password to git in a file: a command line
// is everybody's to read, and git-credential-store gives them to the host
// they are for alone, whatever redirects say.
func (g *gitRun) storeCredentials(u *url.Userinfo) error {
	remote, err := url.Parse(g.url.Remote)
	if err != nil {
		return err
	}
	password, _ := u.Password()
	line := url.URL{Scheme: remote.Scheme, Host: remote.Host, User: url.UserPassword(u.Username(), password)}
	g.credentials = filepath.Join(g.temp, "credentials")
	g.credentialHost = remote.Scheme + "://" + remote.Host
	return os.WriteFile(g.credentials, []byte(line.String()+"\n"), 0o600)
}

var fullCommit = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`) })

// fetch brings the commit in and returns it. One commit without history is
// tried first; servers that cannot do that are asked for all.
func (g *gitRun) fetch(ctx context.Context) (string, error) {
	ref := g.url.Ref
	want := ref
	if want == "" {
		want = "HEAD"
	}
	_, err := g.git(ctx, "fetch", "--progress", "--no-tags", "--depth=1", "--no-recurse-submodules", "--", g.remote, want)
	if err == nil {
		return g.commit(ctx, "FETCH_HEAD")
	}
	if ctx.Err() != nil || errors.Is(err, errGitStopped) {
		return "", err
	}
	missing := strings.Contains(err.Error(), "find remote ref")
	if commitHex().MatchString(ref) {
		if _, e := g.git(ctx, "fetch", "--progress", "--no-recurse-submodules", "--", g.remote, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"); e != nil {
			return "", e
		}
		if commit, e := g.commit(ctx, ref); e == nil {
			return commit, nil
		}
		return "", fmt.Errorf("commit %s is on no branch or tag: %w", ref, define.ErrNotFound)
	}
	if missing {
		return "", fmt.Errorf("it has no branch or tag %s: %w", refName(ref), define.ErrNotFound)
	}
	if strings.Contains(err.Error(), "shallow") || strings.Contains(err.Error(), "dumb http") {
		if _, err := g.git(ctx, "fetch", "--progress", "--no-tags", "--no-recurse-submodules", "--", g.remote, want); err != nil {
			return "", err
		}
		return g.commit(ctx, "FETCH_HEAD")
	}
	return "", err
}

// commit resolves a name of the fetched repository to a commit.
func (g *gitRun) commit(ctx context.Context, name string) (string, error) {
	out, err := g.git(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}")
	if err != nil {
		return "", err
	}
	commit := strings.TrimSpace(out)
	if !fullCommit().MatchString(commit) {
		return "", fmt.Errorf("git gives %s for a commit", oneLine(commit))
	}
	return commit, nil
}

// commitTime is when the commit was made, for the times of its files: they
// then do not depend on when they were checked out.
func (g *gitRun) commitTime(ctx context.Context, commit string) time.Time {
	out, err := g.git(ctx, "show", "--no-patch", "--no-show-signature", "--format=%ct", commit, "--")
	if err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err == nil && n >= 0 {
			return time.Unix(n, 0)
		}
	}
	return time.Unix(0, 0)
}

// normalize sets the modes that git records, which the umask has changed, and
// times, and removes .git folders and files. Nothing but git has written
// here, and nobody else can enter the folder above.
func normalize(ctx context.Context, tree string, when time.Time, keepGit bool) error {
	var dirs []string
	err := filepath.WalkDir(tree, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if d.Name() == ".git" && p != tree {
			if keepGit {
				return skip(d)
			}
			if err := os.RemoveAll(p); err != nil {
				return err
			}
			return skip(d)
		}
		switch {
		case d.IsDir():
			dirs = append(dirs, p)
			return os.Chmod(p, 0o755) //nolint:gosec // git's mode for folders
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			mode := fs.FileMode(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			if err := os.Chmod(p, mode); err != nil {
				return err
			}
		}
		return setTime(p, when)
	})
	// Folders last: removing .git changed their times.
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = setTime(dirs[i], when)
	}
	return err
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func setTime(p string, when time.Time) error {
	ts := unix.NsecToTimespec(when.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// openSubdir opens a folder of the tree. Each component must be a real
// folder: a link could lead anywhere (CVE-2026-33748, CVE-2026-44517).
func openSubdir(tree, subdir string) (*copier.Root, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(tree, flags, 0)
	if err != nil {
		return nil, err
	}
	for _, part := range strings.Split(subdir, "/") {
		if part == "" || part == "." {
			continue
		}
		if part == ".git" || part == ".." {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("subdirectory %s: %s is not part of the repository: %w", oneLine(subdir), part, define.ErrInvalid)
		}
		next, err := unix.Openat(fd, part, flags, 0)
		_ = unix.Close(fd)
		switch {
		case errors.Is(err, unix.ENOENT):
			return nil, fmt.Errorf("it has no folder %s: %w", oneLine(subdir), define.ErrNotFound)
		case err != nil:
			return nil, fmt.Errorf("subdirectory %s: %s is not a folder of the repository (links are not followed): %w", oneLine(subdir), oneLine(part), define.ErrInvalid)
		}
		fd = next
	}
	dir := os.NewFile(uintptr(fd), subdir)
	defer dir.Close()
	return copier.NewRoot(dir)
}

// openGit makes a repository the context.
func (c *Context) openGit(ctx context.Context, o *Options) error {
	g, err := ParseGitURL(o.Location)
	if err != nil {
		return err
	}
	c.Name = g.Display()
	r, err := CheckOut(ctx, g, GitOptions{TempDir: o.TempDir, KeepGitDir: o.KeepGitDir, MaxBytes: o.MaxBytes, MaxMembers: o.MaxMembers, Secrets: o.Secrets})
	if err != nil {
		return err
	}
	c.root, c.temp, c.Commit, c.Warnings = r.root, r.temp, r.Commit, append(c.Warnings, r.Warnings...)
	return nil
}
