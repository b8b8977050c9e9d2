package security

import (
	"strings"
	"testing"
)

// TestMounts gives the options of RUN --mount that change or copy what a step
// sees something of the host's to change. CANARY stands for the canary's path.
func TestMounts(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	const from = "FROM localhost/busybox\n"
	for _, c := range []struct {
		name, file string
		files      map[string]string
		args       []string
		fails      string // part of the error; "" is no error; "*" is either
	}{
		{name: "propagation to the host", args: []string{"--cap-add", "SYS_ADMIN"}, files: map[string]string{"sub/kept": ""},
			file: from + "RUN --mount=target=/x,rshared --mount=type=cache,target=/y,bind-propagation=shared " +
				"grep -q master: /proc/self/mountinfo && exit 9; mkdir -p /y/sub; for d in /x/sub /y/sub; do mount -t tmpfs x $d && touch $d/new; done; true\n" +
				"RUN --mount=target=/x --mount=type=cache,target=/y test ! -e /x/sub/new && test ! -e /y/sub/new\n"},
		{name: "U through links of the context", files: map[string]string{"d/link": "-> CANARY/file", "d/dir": "-> CANARY", "top": "-> CANARY"},
			file: from + "USER 12\nRUN --mount=source=d,target=/x,U stat -c %u /x/link; cat /x/link /x/dir/file; true\n"},
		{name: "U of a link to the host", files: map[string]string{"top": "-> CANARY"},
			file: from + "USER 12\nRUN --mount=source=top,target=/x,U,rw cat /x/file; echo broken >/x/file; true\n", fails: "*"},
		{name: "U of a stage's links", file: from + "RUN mkdir /d && ln -s CANARY /d/l && ln -s / /r\n" + from +
			"USER 12\nRUN --mount=from=0,source=/r/CANARY,target=/x,U cat /x/file; true\n", fails: "*"},
		{name: "U of a cache with links", file: from + "RUN --mount=type=cache,target=/c ln -sfn CANARY /c/l; ln -sfn CANARY/file /c/f\n" +
			"USER 12\nRUN --mount=type=cache,target=/c,U cat /c/f /c/l/file; true\n"},
		{name: "no-dereference", files: map[string]string{"l": "-> CANARY", "f": "-> CANARY/file"},
			file: from + "RUN --mount=source=l,target=/l,no-dereference --mount=source=f,target=/f,no-dereference,rw cat /l/file /f; echo broken >/f; echo broken >/l/file; true\n"},
		{name: "mounts below a mounted link", files: map[string]string{"l": "-> CANARY"},
			file: from + "RUN --mount=source=l,target=/l,no-dereference --mount=type=tmpfs,target=/l/sub --mount=type=cache,target=/l/dir/new cat /l/file; true\n", fails: "*"},
		{name: "tmpcopyup through links", file: from + "RUN ln -s CANARY /d; ln -s / /r; mkdir /e && ln -s CANARY /e/l\n" +
			"RUN --mount=type=tmpfs,target=/e,tmpcopyup readlink /e/l; cat /e/l/file; true\nRUN --mount=type=tmpfs,target=/d,tmpcopyup cat /d/file; true\n", fails: "*"},
		{name: "tmpcopyup of what a link makes of the host", file: from + "RUN ln -s / /r\nRUN --mount=type=tmpfs,target=/r/CANARY,tmpcopyup cat /r/CANARY/file; true\n", fails: "*"},
		{name: "tmpcopyup of the kernel's", file: from + "RUN ln -s /proc/self /p; ln -s /dev /q\nRUN --mount=type=tmpfs,target=/p/fd,tmpcopyup true\n", fails: "*"},
		{name: "a device asks for the host", files: map[string]string{
			"../cdi/a.yaml": "cdiVersion: 1.0.0\nkind: v.com/c\ndevices: [{name: a, containerEdits: {mounts: [{hostPath: CANARY, containerPath: /x}]}}]\n"},
			file: from + "RUN --device=v.com/c=a cat /x/file\n", args: []string{"--cdi-config-dir", "cdi"}, fails: "allow it with --allow device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := p.on(t)
			files := map[string]string{"Containerfile": strings.ReplaceAll(c.file, "CANARY", p.canary)}
			for name, text := range c.files {
				files[name] = strings.ReplaceAll(text, "CANARY", p.canary)
			}
			_, stderr, code := p.run("", append([]string{"build", "--no-cache", p.context(files)}, c.args...)...)
			switch {
			case c.fails == "*":
			case c.fails == "" && code != 0:
				t.Errorf("exit status %d: %s", code, stderr)
			case c.fails != "" && (code == 0 || !strings.Contains(stderr, c.fails)):
				t.Errorf("exit status %d, want an error with %q: %s", code, c.fails, stderr)
			}
			p.check()
		})
	}
}
