package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// errEntered is what commands get that go as far as the store.
var errEntered = errors.New("the store would be opened")

// execute runs a command line that must not come to the store, with an
// environment of its own, and returns what it printed.
func execute(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a := newApp(Streams{In: open("in"), Out: open("out"), Err: open("err")})
	a.getenv = func(name string) string { return env[name] }
	a.enterNamespaces = func(userns.Options) (*userns.Info, error) { return nil, errEntered }
	code = a.run(t.Context(), args)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return code, read("out"), read("err")
}

func TestBadUsage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"bild":                                    `unknown command "bild"; did you mean build?`,
		"mkcw busybox image":                      "the command mkcw is not in this version of strata",
		"frobnicate":                              `unknown command "frobnicate"; see strata --help`,
		"build --outptu x":                        "unknown flag --outptu; did you mean --output?",
		"build --zzzzzz":                          "unknown flag --zzzzzz; see strata build --help",
		"build --attest x=y .":                    "attestations are not in this version of strata",
		"build --provenance .":                    "--provenance=false is what is the case",
		"build --sbom=true .":                     "--sbom=false is what is the case",
		"build --layer-label =x .":                "--layer-label \"=x\": want key=value",
		"build --logsplit .":                      "--logfile only",
		"build --rusage-logfile x .":              "--log-rusage only",
		"build --loglevel 7 .":                    "want a number from 0 to 6",
		"build --cache-from type=gha .":           "type=gha is not in this version of strata",
		"build --cache-to type=inline,mode=max .": "is of its own steps: write type=inline",
		"build --cache-to type=registry .":        "want ref=",
		"build --cache-to type=registry,ref=r.example/c,mode=min .": "mode=min of type=registry is not in this version",
		"build --cache-to hello .":                                  "its name has no registry",
		"build --cache-to r.example/c --layers=false .":             "want layers",
		"build --cache-ttl soon .":                                  "want a duration",
		"build --env =x .":                                          "want name=value",
		"build --os-feature - .":                                    "want the name of a feature",
		"build --squash-all --squash .":                             "want one or the other",
		"build --stage-labels .":                                    "--save-stages only",
		"build --rewrite-timestamp .":                               "wants --source-date-epoch",
		"build --stdin -":                                           "standard input is the context",
		"build --stdin -f - .":                                      "standard input is the Containerfile",
		"build --from= .":                                           "the name is empty",
		"build --build-arg-file /nonexistent .":                     "--build-arg-file",
		"build --compression-format lz4 .":                          "want gzip or zstd",
		"images --registries-conf-dir /dev/null":                    "not a directory",
		"images --registries-conf /nonexistent":                     "--registries-conf",
		"build a b":                                                 "build takes at most one context, got 2 arguments",
		"build --jobs many":                                         `--jobs "many": want a whole number`,
		"build --jobs -1":                                           "--jobs -1: want 0 or more",
		"build --jobs 99999999999999999999":                         "out of range",
		"build --layers=maybe":                                      `--layers "maybe": want true or false`,
		"build -t":                                                  "--tag needs a value",
		"build -t UPPER":                                            "UPPER",
		"build --pull=sometimes":                                    "always, missing, newer or never",
		"build --pull-always --pull-never":                          "want one of them",
		"build --format zip":                                        "oci or docker",
		"build --platform a/b/c/d":                                  "os/arch[/variant]",
		"build --platform linux/386,linux/amr":                      "did you mean arm?",
		"build --platform linux/386 --arch arm":                     "want one or the other",
		"build --label =x":                                          "want key=value",
		"build --annotation x":                                      "want key=value",
		"build --build-arg =x":                                      "want name=value",
		"build --timestamp yesterday":                               "want seconds since 1970",
		"build --timestamp -1":                                      "want seconds since 1970",
		"build --timestamp 999999999999":                            "want seconds since 1970",
		"build --timestamp 1 --source-date-epoch 1":                 "want one or the other",
		"build --ulimit nofile":                                     "nofile",
		"build --cap-add NO_SUCH":                                   "NO_SUCH",
		"build --add-host x":                                        "name:ip",
		"build --dns example.org":                                   "want an IP address",
		"build --shm-size big":                                      "--shm-size",
		"build --volume /a":                                         "source:/target",
		"build --volume /a:b":                                       "source:/target",
		"build --volume /:/b:idmap":                                 "idmap",
		"build --volume /:/b:O,upperdir=/x":                         "upperdir",
		"build --network foo":                                       "want private, host, none",
		"build --isolation chrot":                                   "did you mean chroot?",
		"build --isolation chroot --runtime crun":                   "--isolation oci only",
		"build --runtime-flag debug":                                "--isolation oci",
		"build -o type=zip,dest=x":                                  `type "zip"`,
		"build -o type=cacheonly":                                   "not in this version",
		"build -o type=oci":                                         "want dest=PATH",
		"build -o type=local,dest=-":                                "type=tar,dest=-",
		"build -o type=tar,dest=x,zip=1":                            "zip= of type=tar is not in this version",
		"build -o - -o -":                                           "only one output",
		"build --push":                                              "give -t REGISTRY/NAME",
		"build --push -t hello":                                     "hello cannot be pushed",
		"build --retry -1":                                          "--retry -1",
		"build --retry-delay soon":                                  "want a duration",
		"build --creds :x":                                          "want user[:password]",
		"build --authfile /no/such":                                 "--authfile",
		"build --cert-dir /no/such":                                 "--cert-dir",
		"build --iidfile /no/such/id":                               "--iidfile",
		"build --iidfile /":                                         "is a directory",
		"build --iidfile " + file + "/id":                           "--iidfile",
		"build --ignorefile /no/such":                               "--ignorefile",
		"build --progress fancy":                                    "want auto, plain, tty, quiet or json",
		"build -q --progress plain":                                 "want one or the other",
		"build --progress tty --logfile x":                          "a file is no terminal",
		"build -f - -":                                              "not both",
		"images --filter color=red":                                 "want one of before",
		"images --filter dangling":                                  "want key=value",
		"images --filter dangling=perhaps":                          "want true or false",
		"images --filter reference=[":                               "malformed pattern",
		"images --format {{.Nothing}}":                              "Nothing",
		"images --format {{":                                        "--format",
		"images -q --json --format json":                            "want one of them",
		"images a b":                                                "at most one name",
		"--log-level loud images":                                   "want one of trace",
		"--storage-opt x images":                                    "want key=value",
		"rmi":                                                       "rmi needs images",
		"rmi -a x":                                                  "one of them",
		"tag one":                                                   "tag needs an image and at least one new name",
		"tag one a@b":                                               "digest",
		"inspect --type manifest x":                                 "use manifest inspect x",
		"inspect --type volume x":                                   "want container or image",
		"pull --policy x y":                                         "always, missing, newer or never",
		"push --compression-format lzma x y":                        "gzip or zstd",
		"push --format v1 x y":                                      "oci or docker",
		"login --password x reg":                                    "needs --username",
		"login -u x --password y --password-stdin reg":              "want one or the other",
		"login -u x reg":                                            "use --password-stdin",
		"logout":                                                    "want a registry, or --all",
		"logout --all reg":                                          "want a registry, or --all",
		"prune --filter until=soon":                                 "want a duration",
		"prune x":                                                   "takes no arguments",
		"completion bas":                                            "did you mean bash?",
		"help nosuch":                                               "unknown command",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := execute(t, nil, strings.Fields(line)...)
			if code != 125 || stdout != "" {
				t.Errorf("status %d, standard output %q", code, stdout)
			}
			if !strings.HasPrefix(stderr, "Error: ") || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
				t.Errorf("want one line: %q", stderr)
			}
			if !strings.Contains(stderr, want) || strings.Contains(stderr, errEntered.Error()) {
				t.Errorf("got %q, want %q in it", stderr, want)
			}
		})
	}
}

// TestGoodUsage checks that right values come as far as the store.
func TestGoodUsage(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"build", "bud .", "build-using-dockerfile .", "build . -t a -t b:1", "build -t oci:dir:x",
		"build --pull . -q", "build --pull=newer", "build --layers=false --squash", "build --platform linux/arm64/v8",
		"build --arch arm64 --variant v8", "build --os linux", "build --ulimit nofile=1:2 --shm-size 64m --add-host a:1.2.3.4",
		"build --dns 1.1.1.1 --dns ::1 --dns-search x --dns-option ndots:1", "build -v /tmp:/b:ro -v /tmp:/c",
		"build --cap-add NET_ADMIN --cap-drop all", "build --isolation oci --runtime /x --runtime-flag debug",
		"build --network none", "build -o out", "build -o - .", "build -o type=docker,dest=x -o type=image,name=a",
		"build -o type=docker", "build -o type=registry,name=r.example/x", "build --push -t r.example/x", "build --compress --rm=false --force-rm --load",
		"build --disable-content-trust", "build --progress rawjson", "build --timestamp 0", "build --build-arg A=b --build-arg C",
		"build -f a -f b", "build -f -", "build -", "images", "images x -a --digests -f dangling=true", "images -n -q --no-trunc",
		"images --format {{.}}", "rmi -f x y", "rmi --all", "tag a b c", "inspect -f {{.OCIv1.Config.Env}} x", "history x", "push x", "push x y -q",
		"pull x --tls-verify=false", "prune -a --filter until=24h", "info", "info --format {{.store.GraphRoot}}",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := execute(t, nil, strings.Fields(line)...)
			if code != 125 || stdout != "" || stderr != "Error: "+errEntered.Error()+"\n" {
				t.Errorf("status %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  map[string]string
		args string
		want string // in the error; "" is success up to the store
	}{
		{map[string]string{"STRATA_BUILD_JOBS": "x"}, "build", `STRATA_BUILD_JOBS="x": want a whole number`},
		{map[string]string{"STRATA_BUILD_JOBS": "x"}, "build --jobs 2", ""},
		{map[string]string{"STRATA_LOG_LEVEL": "loud"}, "images", `--log-level "loud"`},
		{map[string]string{"BUILDAH_FORMAT": "zip"}, "build", "oci or docker"},
		{map[string]string{"BUILDAH_FORMAT": "zip", "STRATA_BUILD_FORMAT": "docker"}, "build", ""},
		{map[string]string{"BUILDAH_LAYERS": "maybe"}, "build", `BUILDAH_LAYERS="maybe": want true or false`},
		{map[string]string{"BUILDAH_ISOLATION": "x"}, "build", "--isolation"},
		{map[string]string{"DOCKER_DEFAULT_PLATFORM": "a/b/c/d"}, "build", "os/arch"},
		{map[string]string{"DOCKER_DEFAULT_PLATFORM": "a/b/c/d"}, "build --arch arm64", ""},
		{map[string]string{"SOURCE_DATE_EPOCH": "x"}, "build", "source-date-epoch"},
		{map[string]string{"SOURCE_DATE_EPOCH": "x"}, "build --timestamp 1", ""},
		{map[string]string{"SOURCE_DATE_EPOCH": "x"}, "build --build-arg SOURCE_DATE_EPOCH=5", ""},
		{map[string]string{"STRATA_BUILD_LABEL": "a=b\n=c"}, "build", `--label "=c"`},
		{map[string]string{"STRATA_BUILD_LABEL": ""}, "build", ""},
		{map[string]string{"STRATA_IMAGES_FILTER": "dangling=true,color=red"}, "images", "color=red"},
		{map[string]string{"BUILD_REGISTRY_SOURCES": "{\"x\":1}"}, "build", "BUILD_REGISTRY_SOURCES: key \"x\""},
		{map[string]string{"BUILD_REGISTRY_SOURCES": "[]"}, "pull x", "BUILD_REGISTRY_SOURCES: want a JSON object"},
		{map[string]string{"BUILDKIT_PROGRESS": "fancy"}, "build", "--progress"},
		{map[string]string{"BUILDKIT_PROGRESS": "plain"}, "build -q", ""},
	} {
		_, _, stderr := execute(t, c.env, strings.Fields(c.args)...)
		want := c.want
		if want == "" {
			want = errEntered.Error()
		}
		if !strings.Contains(stderr, want) {
			t.Errorf("%v strata %s: %q, want %q", c.env, c.args, stderr, want)
		}
	}
}

func TestVersionAndHelp(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--version":      "strata version ",
		"version":        "Go Version:",
		"version --json": `"goVersion"`,
		"--help":         "Available Commands:",
		"":               "Available Commands:",
		"help build":     "Examples:",
		"build --help":   "Examples:",
		"completion zsh": "#compdef strata",
	} {
		code, stdout, stderr := execute(t, nil, strings.Fields(line)...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("strata %s: status %d, %q, %q", line, code, stderr, stdout)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	_, stdout, _ := execute(t, nil, cobra.ShellCompRequestCmd, "build", "--format", "")
	if !strings.HasPrefix(stdout, "oci\ndocker\n") {
		t.Errorf("got %q", stdout)
	}
	// A store that cannot be opened completes nothing, and says nothing.
	_, stdout, _ = execute(t, nil, cobra.ShellCompRequestCmd, "rmi", "")
	if stdout != ":4\n" {
		t.Errorf("got %q", stdout)
	}
}

// TestTree checks what every command and flag owes its reader.
func TestTree(t *testing.T) {
	t.Parallel()
	root := NewCommand()
	for _, c := range append(root.Commands(), root) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s: has no description or no example", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s: has no description", c.CommandPath(), f.Name)
			}
		})
		if c == root {
			continue
		}
		for _, m := range Missing() {
			if m.Command == "" && root.PersistentFlags().Lookup(m.Name) != nil {
				t.Errorf("--%s: is in the table of missing flags", m.Name)
			}
			if m.Command != c.Name() {
				continue
			}
			if c.Flags().Lookup(m.Name) != nil || m.Short != "" && c.Flags().ShorthandLookup(m.Short) != nil {
				t.Errorf("%s --%s: is in the table of missing flags", c.Name(), m.Name)
			}
		}
	}
	for _, missing := range MissingCommands() {
		name := missing.Name
		if c, _, err := root.Find([]string{name}); err == nil && c != root {
			t.Errorf("%s: is in the table of missing commands", name)
		}
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	step := func(code int) error {
		return &imagebuildah.InstructionError{File: "Containerfile", Line: 2, Instruction: "RUN x", Err: &isolation.ExitError{Code: code}}
	}
	interrupted := func(s syscall.Signal) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(&Interrupted{s})
		return ctx
	}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		code int
		text string
	}{
		{t.Context(), nil, 0, ""},
		{t.Context(), step(42), 42, "Containerfile:2: RUN x: exit status 42"},
		{t.Context(), fmt.Errorf("a: %w", step(127)), 127, "a: Containerfile:2: RUN x: exit status 127"},
		{t.Context(), step(0), 125, "Containerfile:2: RUN x: exit status 0"},
		{t.Context(), fmt.Errorf("bad: %w", define.ErrInvalid), 125, "bad"},
		{t.Context(), errors.Join(errors.New("a"), fmt.Errorf("b: %w", define.ErrInUse)), 125, "a; b"},
		{interrupted(syscall.SIGINT), step(137), 130, "interrupted by SIGINT at Containerfile:2: RUN x"},
		{interrupted(syscall.SIGTERM), context.Canceled, 143, "interrupted by SIGTERM"},
		{t.Context(), &errResult{syscall.EPIPE}, 141, ""},
		{t.Context(), fmt.Errorf("image a: %w", syscall.ENOSPC), 125, "image a: no space left on device (neither blocks nor inodes may run out: df, df -i)"},
		{t.Context(), fmt.Errorf("a: %w (b)", syscall.ENOSPC), 125, "a: no space left on device (b)"},
		{t.Context(), &errResult{syscall.ENOSPC}, 125, "standard output: no space left on device"},
	} {
		if got := exitCode(c.ctx, c.err); got != c.code {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.code)
		}
		if c.err == nil {
			continue
		}
		if f, show := failure(c.ctx, c.err); show && f.Text != c.text || show != (c.text != "") {
			t.Errorf("failure(%v) = %q, want %q", c.err, f.Text, c.text)
		}
	}
}

func TestFullOutput(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full: ", err)
	}
	defer full.Close()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "err"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	if code := Run(t.Context(), []string{"version"}, Streams{In: os.Stdin, Out: full, Err: stderr}); code != 125 {
		t.Errorf("status %d", code)
	}
	b, err := os.ReadFile(stderr.Name())
	if err != nil || !strings.Contains(string(b), "no space left") {
		t.Errorf("%q, %v", b, err)
	}
}
