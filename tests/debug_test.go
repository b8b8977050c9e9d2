package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/testenv"
)

// shellPrompt is what a shell says that waits for a command; the tests set it.
const shellPrompt = "debug> "

// debugStore is a store with the base image localhost/busybox.
func debugStore(t *testing.T) (strata string, env []string) {
	t.Helper()
	testenv.Require(t, func() error {
		if testenv.Root() == nil {
			return nil
		}
		return testenv.UserNamespaces()
	})
	strata, env = testenv.Strata(t), nil
	env = exampleStore(t, strata)
	id := exampleRun(t, env, strata, "pull", "-q", "oci:"+baseimage.Layout(t)+":busybox")
	exampleRun(t, env, strata, "tag", id, "localhost/busybox:latest")
	return strata, env
}

func debugContext(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// failingStep fails until somebody makes /work/fixed; that its mount is there
// is seen from a shell, too.
const failingStep = `FROM localhost/busybox
ENV V=there PS1="` + shellPrompt + `"
WORKDIR /work
RUN --mount=type=tmpfs,target=/scratch test -e /scratch && test -e fixed && touch went-on
`

// TestOnErrorRetry repairs a step in its shell and has it run again.
func TestOnErrorRetry(t *testing.T) {
	strata, env := debugStore(t)
	dir := debugContext(t, failingStep)
	x := onTerminal(t, env, 33, 101, strata, "build", "--on-error=shell", "-t", "fixed", dir)
	x.expect("This is a shell in its place")
	x.expect(shellPrompt)
	x.send("echo v=$V in $(pwd) size $(stty size)\n")
	x.expect("\nv=there in /work size 33 101\r\n")
	x.send("grep -c ' /scratch tmpfs ' /proc/mounts\n")
	x.expect("\n1\r\n")
	// An interrupt belongs to the shell: it ends what runs there, not the build.
	x.expect(shellPrompt)
	x.send("echo sleeping; sleep 1000\n")
	x.expect("\nsleeping\r\n")
	x.interrupt(shellPrompt)
	x.send("touch fixed; exit 7\n")
	x.expect("[r/a] ")
	x.send("what\n")
	x.expect("[r/a] ")
	x.send("r\n")
	if status := x.end(); status != 0 {
		t.Fatalf("status %d:\n%s", status, x.seen.String())
	}
	// What the shell left belongs to the step; the mount does not.
	c := exampleRun(t, env, strata, "from", "fixed")
	if got := exampleRun(t, env, strata, "run", c, "ls", "/work"); strings.Join(strings.Fields(got), " ") != "fixed went-on" {
		t.Errorf("/work holds %q", got)
	}
	exampleRun(t, env, strata, "rm", c)
	// The cache does not hold what needed help.
	x = onTerminal(t, env, 24, 80, strata, "build", "-t", "again", dir)
	if status := x.end(); status != 1 || !strings.Contains(x.seen.String(), "Containerfile:4") {
		t.Errorf("status %d of a build that nobody helps:\n%s", status, x.seen.String())
	}
}

// TestOnErrorAbort ends a build from its shell, by the answer, by the end of
// input and by an interrupt: nothing of it is left.
func TestOnErrorAbort(t *testing.T) {
	strata, env := debugStore(t)
	dir := debugContext(t, failingStep)
	for _, tc := range []struct {
		name, answer string
		status       int
	}{
		{"answer", "a\n", 1},
		{"end of input", "\x04", 1},
		{"interrupt", "\x03", 130},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := onTerminal(t, env, 24, 80, strata, "build", "--on-error=shell", "-t", "never", dir)
			x.expect(shellPrompt)
			x.send("exit\n")
			x.expect("[r/a] ")
			x.send(tc.answer)
			if status := x.end(); status != tc.status {
				t.Errorf("status %d, want %d:\n%s", status, tc.status, x.seen.String())
			}
			if got := exampleRun(t, env, strata, "images", "--format", "{{.Name}}"); got != "localhost/busybox" {
				t.Errorf("images: %s", got)
			}
			if got := exampleRun(t, env, strata, "containers", "-q"); got != "" {
				t.Errorf("containers: %s", got)
			}
		})
	}
}

// TestDebugTerminal works in a container's shell as people do.
func TestDebugTerminal(t *testing.T) {
	strata, env := debugStore(t)
	exampleRun(t, env, strata, "from", "-q", "--name", "app", "busybox")
	exampleRun(t, env, strata, "config", "--env", "PS1="+shellPrompt, "--workingdir", "/work", "app")
	x := onTerminal(t, env, 30, 90, strata, "debug", "--env", "MORE=more", "app")
	x.expect(shellPrompt)
	x.send("echo $MORE at $(tty) in $(pwd) size $(stty size)\n")
	x.expect("\nmore at /dev/pts/0 in /work size 30 90\r\n")
	x.expect(shellPrompt)
	x.send("echo kept >file; exit 5\n")
	if status := x.end(); status != 5 {
		t.Errorf("status %d:\n%s", status, x.seen.String())
	}
	if got := exampleRun(t, env, strata, "run", "app", "cat", "file"); got != "kept" {
		t.Errorf("/work/file holds %q", got)
	}
}
