package buildcontext

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Times of a git process.
const (
	gitSilence = 2 * time.Minute // without progress
	gitPoll    = 500 * time.Millisecond
)

// gitMemory is more than git needs, for what it fetches with --depth.
const gitMemory = 2 << 30

// errGitStopped marks a git process that was ended for a bound of ours.
var errGitStopped = errors.New("git was stopped")

// gitRun runs git in a repository of ours.
type gitRun struct {
	binary, temp, tree string
	url                *GitURL
	remote             string
	options            GitOptions
	credentials        string // file, "" without
	credentialHost     string
	config             string // file with a header, "" without
	secret             string // the header
}

// findGit looks for the host's git; relative elements of PATH do not count.
func findGit() (string, error) {
	binary, err := exec.LookPath("git")
	if err != nil || !filepath.IsAbs(binary) {
		return "", fmt.Errorf("git is not in PATH; install git, or check the repository out and name its folder: %w", define.ErrUnsupported)
	}
	return binary, nil
}

// passed are the variables of the caller's environment that git needs.
var passed = []string{
	"SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY",
}

// environment is all that git sees: none of the user's or system's
// configuration, no prompts, and only the transports that are wanted.
func (g *gitRun) environment() []string {
	protocols, config := "http:https:ssh:git", "/dev/null"
	if g.config != "" {
		config = g.config
	}
	if g.url.local {
		protocols = "file"
	}
	env := []string{
		"PATH=" + absolutePath(os.Getenv("PATH")),
		"HOME=" + filepath.Join(g.temp, "home"),
		"XDG_CONFIG_HOME=" + filepath.Join(g.temp, "home"),
		"LC_ALL=C", "LANGUAGE=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_GLOBAL=" + config, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GIT_PAGER=cat", "GIT_EDITOR=false", "GIT_OPTIONAL_LOCKS=0",
		"GIT_LFS_SKIP_SMUDGE=1", "GIT_ALLOW_PROTOCOL=" + protocols, "GIT_PROTOCOL_FROM_USER=0",
		"GIT_CEILING_DIRECTORIES=" + g.temp,
	}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if _, ok := os.LookupEnv("GIT_SSH_COMMAND"); !ok {
		env = append(env, "GIT_SSH_COMMAND=ssh -oBatchMode=yes -oServerAliveInterval=20 -oServerAliveCountMax=3 -oConnectTimeout=30")
	}
	return env
}

// absolutePath drops the elements of PATH that depend on the working folder,
// which is the repository's.
func absolutePath(path string) string {
	var kept []string
	for _, dir := range filepath.SplitList(path) {
		if filepath.IsAbs(dir) {
			kept = append(kept, dir)
		}
	}
	return strings.Join(kept, ":")
}

// settings come before the command and beat what a repository says.
func (g *gitRun) settings() []string {
	s := []string{
		"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=false",
		"core.protectNTFS=true", "core.protectHFS=true", "core.symlinks=true", "core.fileMode=true", "core.autocrlf=false",
		"core.attributesFile=/dev/null", "core.excludesFile=/dev/null",
		"init.defaultBranch=main", "advice.detachedHead=false", "gc.auto=0", "maintenance.auto=false",
		"protocol.ext.allow=never", "credential.helper=",
		"http.lowSpeedLimit=1", "http.lowSpeedTime=60", "http.followRedirects=initial",
		"fetch.recurseSubmodules=false", "submodule.recurse=false", "transfer.bundleURI=false", "fetch.bundleURI=",
		"log.showSignature=false",
	}
	if !g.url.local {
		s = append(s, "protocol.file.allow=never")
	}
	if g.credentials != "" {
		s = append(s, "credential."+g.credentialHost+".helper=store --file="+quoteShell(g.credentials))
	}
	args := make([]string, 0, 2*len(s))
	for _, v := range s {
		args = append(args, "-c", v)
	}
	return args
}

// quoteShell quotes a path for git, which gives helpers to sh.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// git runs one command in the tree and returns its standard output. The error
// holds the line of its messages that says most.
func (g *gitRun) git(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if g.url.local && args[0] == "submodule" {
		// A submodule of a local repository may not be one of this host's
		// files (CVE-2022-39253).
		return g.run(ctx, cancel, append(g.environment(), "GIT_ALLOW_PROTOCOL=http:https:ssh:git"), args)
	}
	return g.run(ctx, cancel, g.environment(), args)
}

func (g *gitRun) run(ctx context.Context, cancel context.CancelCauseFunc, env, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, g.binary, append(g.settings(), args...)...)
	cmd.Dir, cmd.Env = g.tree, env
	out := &tail{limit: 1 << 20}
	messages := &tail{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, messages
	// Its own process group: what it starts (ssh, remote helpers) ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	done := make(chan struct{})
	watched := make(chan struct{})
	err := cmd.Start()
	if err == nil {
		go func() {
			defer close(watched)
			g.watch(cmd.Process.Pid, done, messages, cancel)
		}()
		err = cmd.Wait()
	} else {
		close(watched)
	}
	close(done)
	<-watched
	if cause := context.Cause(ctx); cause != nil {
		return "", cause
	}
	if err != nil {
		return "", errors.New(g.explain(args[0], messages.String(), err))
	}
	return out.String(), nil
}

// watch stops git when it is silent for too long, or fills the disk or the
// memory: a server's list of references may have no end.
func (g *gitRun) watch(pid int, done <-chan struct{}, messages *tail, cancel context.CancelCauseFunc) {
	var before unix.Statfs_t
	known := unix.Statfs(g.temp, &before) == nil
	tick := time.NewTicker(gitPoll)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if silent := messages.silence(); silent > gitSilence {
			cancel(fmt.Errorf("nothing heard from it for %s: %w", silent.Round(time.Second), errGitStopped))
			return
		}
		if used := processMemory(pid, 0); used > gitMemory {
			cancel(fmt.Errorf("it takes more than %d MiB of memory: %w", gitMemory>>20, errGitStopped))
			return
		}
		var now unix.Statfs_t
		if !known || unix.Statfs(g.temp, &now) != nil {
			continue
		}
		if now.Bavail < before.Bavail && int64(before.Bavail-now.Bavail)*now.Bsize > g.options.MaxBytes ||
			now.Ffree < before.Ffree && int64(before.Ffree-now.Ffree) > g.options.MaxMembers {
			cancel(fmt.Errorf("it takes more than %d MiB or %d files: %w", g.options.MaxBytes>>20, g.options.MaxMembers, errGitStopped))
			return
		}
	}
}

// processMemory is the memory of a process and of those that it has started,
// in bytes, without the files that they have mapped. What has just ended counts
// nothing.
func processMemory(pid, depth int) (used int64) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/statm") // proc_pid_statm(5): pages
	if err != nil || depth > 8 {
		return 0
	}
	var size, resident, shared int64
	if n, _ := fmt.Sscan(string(b), &size, &resident, &shared); n == 3 {
		used = (resident - shared) * int64(os.Getpagesize())
	}
	// Only kernels with CONFIG_PROC_CHILDREN have the file, as nearly all do.
	threads, _ := filepath.Glob(dir + "/task/*/children")
	for _, file := range threads {
		b, _ := os.ReadFile(file)
		for child := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				used += processMemory(n, depth+1)
			}
		}
	}
	return used
}

// explain picks the telling line of git's messages.
func (g *gitRun) explain(command, messages string, err error) string {
	var best string
	lines := strings.FieldsFunc(messages, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		for _, prefix := range []string{"fatal: ", "error: ", "ERROR: ", "remote: "} {
			if text, ok := strings.CutPrefix(line, prefix); ok && (best == "" || prefix == "fatal: ") && strings.TrimSpace(text) != "" {
				best = text
				// The cause comes on the next line, after the address.
				if strings.HasSuffix(text, ":") && i+1 < len(lines) {
					best += " " + lines[i+1]
				}
			}
		}
	}
	if best == "" {
		if best = strings.TrimSpace(messages); best == "" {
			best = err.Error()
		}
	}
	if u := g.url.user; u != nil {
		if p, ok := u.Password(); ok && p != "" {
			best = strings.ReplaceAll(best, p, "xxxxx")
		}
		if n := u.Username(); n != "" {
			best = strings.ReplaceAll(best, n, "xxxxx")
		}
	}
	if g.secret != "" {
		best = strings.ReplaceAll(best, g.secret, "xxxxx")
	}
	if strings.Contains(best, "terminal prompts disabled") || strings.Contains(best, "could not read Username") {
		return "it does not exist, or wants credentials; give them with --secret id=GIT_AUTH_TOKEN.HOST, or for the context in the URL as https://user:token@host/path.git"
	}
	return "git " + command + ": " + oneLine(best)
}

var gitVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^git version (\d+)\.(\d+)(?:\.(\d+))?`) })

// versionWarning names a git that is older than the fixes for the faults that
// a hostile repository can use (CVE-2025-48384 and its kin).
func (g *gitRun) versionWarning(ctx context.Context) string {
	out, err := g.git(ctx, "version")
	if err != nil {
		return ""
	}
	m := gitVersion().FindStringSubmatch(out)
	if m == nil {
		return ""
	}
	var v [3]int
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1])
	}
	if v[0] > 2 || v[0] == 2 && (v[1] > 50 || v[1] == 50 && v[2] >= 1) {
		return ""
	}
	return fmt.Sprintf("git %d.%d.%d is older than 2.50.1, whose fixes matter for repositories you do not trust (your distribution may have them)", v[0], v[1], v[2])
}

// tail keeps the last bytes written to it, and when that was.
type tail struct {
	mu    sync.Mutex
	limit int
	buf   bytes.Buffer
	last  time.Time
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
	t.buf.Write(p)
	if t.buf.Len() > 2*t.limit {
		t.buf.Next(t.buf.Len() - t.limit)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// silence is the time since the last write, or the first question.
func (t *tail) silence() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.IsZero() {
		t.last = time.Now()
	}
	return time.Since(t.last)
}
