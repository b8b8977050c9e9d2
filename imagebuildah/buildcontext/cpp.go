package buildcontext

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

// Bounds of the preprocessor: a build file may be hostile.
const (
	cppTime = 20 * time.Second
	// cppLimits bounds the address space, in KiB.
	cppLimits = `ulimit -v 1048576; exec "$@"`
)

// hash stands for the # of a comment while cpp reads the file.
const hash = "__STRATA_COMMENT__"

// directives are the words that make a line that begins with # cpp's.
var directives = []string{"define", "undef", "include", "include_next", "import", "if", "ifdef", "ifndef", "elif", "elifdef",
	"elifndef", "else", "endif", "error", "warning", "line", "pragma", "ident", "assert", "unassert", "embed"}

// hideComments changes the lines that are comments, or text of a script, for
// cpp would take them for directives that it does not know.
func hideComments(content []byte) []byte {
	lines := bytes.SplitAfter(content, []byte("\n"))
	var out bytes.Buffer
	for _, l := range lines {
		if rest, ok := bytes.CutPrefix(l, []byte("#")); ok {
			word := bytes.TrimLeft(rest, " \t")
			n := 0
			for n < len(word) && (word[n] == '_' || word[n] >= 'a' && word[n] <= 'z') {
				n++
			}
			if !slices.Contains(directives, string(word[:n])) && !bytes.HasPrefix(word, []byte("\\\n")) {
				out.WriteString(hash)
				l = rest
			}
		}
		out.Write(l)
	}
	return out.Bytes()
}

// CheckCPPFlag refuses what is neither -DNAME, -DNAME=VALUE nor -UNAME: other
// flags of cpp would read and write files.
func CheckCPPFlag(flag string) error {
	if len(flag) > 2 && (strings.HasPrefix(flag, "-D") || strings.HasPrefix(flag, "-U")) && !strings.ContainsAny(flag, "\x00\n") {
		return nil
	}
	return fmt.Errorf("--cpp-flag %q: want -DNAME, -DNAME=VALUE or -UNAME: %w", flag, define.ErrInvalid)
}

// preprocess runs build files that end in ".in" through the C preprocessor, as
// buildah does. What they include lies in the context.
func (c *Context) preprocess(ctx context.Context, o *Options) error {
	for i := range c.Files {
		f := &c.Files[i]
		if !strings.HasSuffix(f.Name, ".in") {
			continue
		}
		content, err := c.cpp(ctx, o, f.Content)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		f.Content = content
	}
	return nil
}

func (c *Context) cpp(ctx context.Context, o *Options, content []byte) ([]byte, error) {
	program, err := exec.LookPath("cpp")
	if err != nil {
		return nil, fmt.Errorf("files that end in .in are read by the C preprocessor, which is not installed; install cpp, or rename the file: %w", define.ErrUnsupported)
	}
	for _, flag := range o.CPPFlags {
		if err := CheckCPPFlag(flag); err != nil {
			return nil, err
		}
	}
	temp, err := makeTemp(o.TempDir)
	if err != nil {
		return nil, err
	}
	out, err := c.runCPP(ctx, program, filepath.Join(temp, "dependencies"), o.CPPFlags, content)
	return out, errors.Join(err, removeTree(temp))
}

func (c *Context) runCPP(ctx context.Context, program, deps string, flags []string, content []byte) ([]byte, error) {
	args := append([]string{"-E", "-traditional", "-undef", "-nostdinc", "-MD", "-MF", deps}, flags...)
	// A FIFO that is included would be waited for.
	ctx, cancel := context.WithTimeoutCause(ctx, cppTime, fmt.Errorf("the C preprocessor took longer than %s: %w", cppTime, define.ErrInvalid))
	defer cancel()
	// The shell bounds cpp and what that starts, which one signal ends.
	args = append([]string{"-c", cppLimits, "sh", program}, append(args, "-")...)
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	// The context by descriptor: what its path leads to may have changed.
	cmd.Dir = "/proc/self/fd/" + strconv.Itoa(int(c.root.File().Fd()))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(hideComments(content))
	var stderr bytes.Buffer
	cmd.Stderr = &limitedBuffer{b: &stderr, left: 4 << 10}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", program, bare(err))
	}
	out, err := io.ReadAll(io.LimitReader(stdout, MaxBuildFile+1))
	if len(out) > MaxBuildFile {
		err = errors.Join(err, cmd.Cancel())
	}
	wait := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(out) > MaxBuildFile:
		return nil, fmt.Errorf("larger than %d MiB after preprocessing: %w", MaxBuildFile>>20, define.ErrInvalid)
	case err != nil:
		return nil, err
	case wait != nil:
		return nil, fmt.Errorf("the C preprocessor failed: %s: %w", firstMessage(stderr.String(), wait), define.ErrInvalid)
	}
	if err := c.checkIncluded(deps); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(dropMarkers(out), []byte(hash), []byte("#")), nil
}

// firstMessage is the first complaint of cpp, without its name for the input.
func firstMessage(text string, otherwise error) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return otherwise.Error()
	}
	return strings.ToValidUTF8(strings.ReplaceAll(line, "<stdin>:", "line "), "?")
}

// limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}

// checkIncluded refuses files that lie outside of the context: cpp has read
// them, but nothing of them is used.
func (c *Context) checkIncluded(deps string) error {
	list, err := os.ReadFile(deps)
	if err != nil {
		return err
	}
	_, names, _ := strings.Cut(string(list), ":")
	for _, name := range makeWords(names) {
		if path.IsAbs(name) || !c.contains(name) {
			return fmt.Errorf("#include of %s, which is outside of the build context: %w", name, define.ErrEscape)
		}
	}
	return nil
}

// contains reports whether a name means the same file inside the context's
// root and to other programs.
func (c *Context) contains(name string) bool {
	inside, err := c.root.Open(name, unix.O_PATH)
	if err != nil {
		return false
	}
	defer inside.Close()
	a, err := inside.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat("/proc/self/fd/" + strconv.Itoa(int(c.root.File().Fd())) + "/" + name)
	return err == nil && os.SameFile(a, b)
}

// makeWords splits what cpp writes for make(1): words with spaces, # and $
// escaped, on lines that a backslash continues.
func makeWords(text string) []string {
	var words []string
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == '\\' && i+1 < len(text) && strings.IndexByte(" #\\\t", text[i+1]) >= 0:
			i++
			word.WriteByte(text[i])
		case b == '\\' && i+1 < len(text) && text[i+1] == '\n':
			i++
			flush()
		case b == '$' && i+1 < len(text) && text[i+1] == '$':
			i++
			word.WriteByte('$')
		case b == ' ' || b == '\n' || b == '\t':
			flush()
		default:
			word.WriteByte(b)
		}
	}
	flush()
	return words
}

// dropMarkers removes the lines that say where the next comes from, and puts
// each line of the file itself where it was, so that errors name its place;
// behind an #include that is no longer possible.
func dropMarkers(text []byte) []byte {
	var out bytes.Buffer
	line, own := 1, true
	for len(text) > 0 {
		l := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			l = text[:i+1]
		}
		text = text[len(l):]
		if n, name, ok := marker(l); ok {
			own = name == "<stdin>" || own && name == ""
			for name == "<stdin>" && line < n && n-line < MaxBuildFile>>10 {
				out.WriteByte('\n')
				line++
			}
			continue
		}
		if !own && len(bytes.TrimSpace(l)) == 0 {
			continue
		}
		out.Write(l)
		line++
	}
	return out.Bytes()
}

// marker reads `# LINE "NAME" FLAGS`.
func marker(l []byte) (n int, name string, ok bool) {
	fields := strings.SplitN(strings.TrimSpace(string(l)), " ", 3)
	if len(fields) < 3 || fields[0] != "#" || !strings.HasPrefix(fields[2], `"`) {
		return 0, "", false
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, "", false
	}
	name, _, ok = strings.Cut(fields[2][1:], `"`)
	return n, name, ok
}
