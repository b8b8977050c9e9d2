package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stratabuild/strata/tests/baseimage"
	"github.com/stratabuild/strata/tests/testenv"
)

// The measuring child is this very program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == measureArg {
		measureMain(os.Args[2:])
	}
	os.Exit(m.Run())
}

// Every row works with the yardstick, which needs nothing but the system.
func TestYardstick(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Overlay, testenv.UserNamespaces)
	if _, err := baseimage.Busybox(context.Background(), t.TempDir()); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "out.json")
	dir := t.TempDir()
	o := options{runs: 1, only: regexp.MustCompile(""), tools: []string{"yardstick"}, hasty: true, json: file, dir: dir, scale: small}
	if err := bench(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != len(rows(small))+1 { // one is computed
		t.Fatalf("%d results, want %d", len(r.Results), len(rows(small))+1)
	}
	for i, row := range rows(small) {
		x := r.Results[i]
		switch {
		case x.Row != row.name:
			t.Errorf("result %d is of %s, want %s", i, x.Row, row.name)
		case row.script == "" && (x.Missing == "" || x.Missing != row.noScript):
			t.Errorf("%s: missing %q, want the reason %q", x.Row, x.Missing, row.noScript)
		case row.script != "" && (len(x.Seconds) != 1 || x.Median <= 0 || x.RSS <= 0):
			t.Errorf("%+v", x)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestMeasureFails(t *testing.T) {
	t.Parallel()
	_, err := measure(context.Background(), exec.Command("sh", "-c", "echo why >&2; exit 3"), order{})
	if err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("%v", err)
	}
	if _, err := measure(context.Background(), exec.Command("/no/such/program"), order{}); err == nil {
		t.Error("a program that does not exist was measured")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := measure(ctx, exec.Command("sleep", "60"), order{}); err == nil {
		t.Error("a cancelled run was measured")
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(tt.in); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	r := &report{
		Machine: "m", Runs: 3, Versions: map[string]string{"strata": "1", "buildah": "2", "yardstick": "3"}, Disk: "bytes",
		Left: []string{"docker is left out: none"},
		Results: []result{
			{Row: "a", Tool: "strata", Median: 0.05, Memory: 40 << 20, CPU: 0.25, Written: 1 << 20},
			{Row: "a", Tool: "buildah", Median: 5, Memory: 1536 << 10, Written: -1},
			{Row: "a", Tool: "yardstick", Missing: "why"},
			{Row: "longer", Tool: "strata", Median: 0.25, Memory: 3 << 20, CPU: 1.5},
			{Row: "longer", Tool: "buildah", Missing: "fails: so\nand so"},
			{Row: "longer", Tool: "yardstick", Median: 0.125, Memory: 1 << 18},
		},
		tools: []string{"strata", "buildah", "yardstick"},
	}
	const want = `m
median of 3 runs, of 3 where one takes longer than 30 s
strata: 1
buildah: 2
yardstick: 3
docker is left out: none
memory: of all processes together, a daemon's too, the most of looks 1ms apart, in a run of its own (proportional set sizes)
written: bytes

row       strata  buildah  yardstick  buildah / strata  strata / yardstick  strata memory  buildah memory  yardstick memory  strata CPU  buildah CPU  yardstick CPU  strata written  buildah written  yardstick written
a       50.00 ms  5.000 s          -          100.00 x                   -         40 MiB         1.5 MiB                 -    250.0 ms            -              -         1.0 MiB                -                  -
longer  250.0 ms        -   125.0 ms                 -              2.00 x        3.0 MiB               -           0.2 MiB     1.500 s            -              -         0.0 MiB                -            0.0 MiB

missing:
buildah: fails: so and so: longer
yardstick: why: a
`
	var b strings.Builder
	r.print(&b)
	if b.String() != want {
		t.Errorf("\n%s", b.String())
	}
}

// What a step costs is what more steps cost more, in each measure.
func TestDerive(t *testing.T) {
	t.Parallel()
	r := &report{
		tools: []string{"strata", "buildah"},
		Results: []result{
			{Row: stepsRow(20), Tool: "strata", Median: 0.3, CPU: 0.4, Written: 2000, Calls: 30_000},
			{Row: stepsRow(200), Tool: "strata", Median: 2.1, CPU: 2.2, Written: 20_000, Calls: 300_000},
			{Row: stepsRow(20), Tool: "buildah", Median: 6, Written: -1},
			{Row: stepsRow(200), Tool: "buildah", Missing: "fails"},
			{Row: cachedStepsRow(20), Tool: "buildah", Median: 1, Written: -1},
			{Row: cachedStepsRow(200), Tool: "buildah", Median: 1.9, Written: 5},
		},
	}
	n := len(r.Results)
	r.derive(full)
	got := r.Results[n:]
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	x, y := got[0], got[1]
	if x.Row != "one RUN step more: (200 RUN - 20 RUN) / 180" || x.Tool != "strata" || !near(x.Median, 0.01) || !near(x.CPU, 0.01) ||
		x.Written != 100 || x.Calls != 1500 {
		t.Errorf("%+v", x)
	}
	if y.Row != "one cached RUN step more: (200 RUN - 20 RUN) / 180" || y.Tool != "buildah" || !near(y.Median, 0.005) || y.Written != -1 || y.Calls != 0 {
		t.Errorf("%+v", y)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestDuration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		seconds float64
		want    string
	}{{0.00781, "7.81 ms"}, {0.1234, "123.4 ms"}, {1.5, "1.500 s"}, {-0.002, "-2.00 ms"}, {0, "0.00 ms"}} {
		if got := duration(tt.seconds); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.seconds, got, tt.want)
		}
	}
}

// Issue 5: what a user namespace costs is the difference to root, in time.
func TestPrintRootless(t *testing.T) {
	t.Parallel()
	r := &report{
		Results: []result{{Row: "a", Tool: "strata", Median: 0.010}, {Row: "a", Tool: "rootless", Median: 0.0153}, {Row: "b", Tool: "strata", Median: 1}},
		tools:   []string{"strata", "rootless"},
	}
	var b strings.Builder
	r.print(&b)
	head, line := "", ""
	for l := range strings.Lines(b.String()) {
		switch {
		case strings.HasPrefix(l, "row"):
			head = l
		case strings.HasPrefix(l, "a "):
			line = l
		}
	}
	if !strings.Contains(head, "rootless - strata") || !strings.Contains(line, "5.3 ms") {
		t.Errorf("\n%s", b.String())
	}
}

// A row runs as root and as a user, who is gone afterwards.
func TestRootless(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Root, testenv.Overlay, testenv.UserNamespaces)
	for _, tool := range []string{"useradd", "newuidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if _, err := baseimage.Busybox(context.Background(), t.TempDir()); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "out.json")
	dir, err := os.MkdirTemp("/var/tmp", "strata-bench-test-") // a user reaches it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = testenv.RemoveStore(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	o := options{runs: 1, only: regexp.MustCompile("^run true$|^2 RUN echo, no cache$"), tools: []string{"strata", "rootless"}, hasty: true, json: file, dir: dir, scale: small}
	if err := bench(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil || len(r.Results) != 4 {
		t.Errorf("%v: %s", err, b)
	}
	name := fmt.Sprintf("strata-bench-%d", os.Getpid())
	if users, err := os.ReadFile("/etc/passwd"); err != nil || strings.Contains(string(users), name+":") {
		t.Errorf("the user %s is left, or %v", name, err)
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	if err := bench(context.Background(), options{runs: 0}); err == nil {
		t.Error("no runs")
	}
	o := options{runs: 1, only: regexp.MustCompile(""), tools: []string{"bazel"}, dir: t.TempDir(), scale: small}
	if err := bench(context.Background(), o); err == nil || !strings.Contains(err.Error(), "bazel") {
		t.Errorf("%v", err)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := [2]string{filepath.Join(dir, "old.json"), filepath.Join(dir, "new.json")}
	for i, seconds := range []float64{2, 1} {
		r := report{Machine: "m", Results: []result{
			{Row: "a", Tool: "strata", Median: seconds, Memory: int64(10 * (i + 1)), CPU: 1, Calls: 100},
			{Row: fmt.Sprint("only", i), Tool: "strata", Median: 1}, {Row: "a", Tool: "podman", Missing: "why"},
		}}
		if err := r.write(files[i]); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if err := compare(&b, files[0], files[1]); err != nil {
		t.Fatal(err)
	}
	const want = `row      tool      old      new  new / old  memory     CPU  written   calls
a      strata  2.000 s  1.000 s     0.50 x  2.00 x  1.00 x        -  1.00 x
only0  strata  1.000 s        -          -       -       -        -       -
only1  strata        -  1.000 s          -       -       -        -       -
`
	if b.String() != want {
		t.Errorf("\n%s", b.String())
	}
	if err := compare(&b, files[0], filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there was compared")
	}
}

// A full store is one that its tools can read.
func TestFillStore(t *testing.T) {
	t.Parallel()
	testenv.Require(t, testenv.Overlay, testenv.UserNamespaces)
	binary, err := testenv.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() { _ = testenv.RemoveStore(dir) })
	b := builder{tool: "strata", program: binary}
	if _, err := output(t.Context(), b.call(dir, "images")); err != nil {
		t.Fatal(err)
	}
	if err := fillStore(filepath.Join(dir, "root"), 3, 2); err != nil {
		t.Fatal(err)
	}
	out, err := output(t.Context(), b.call(dir, "images", "-n"))
	if err != nil || strings.Count(out, "localhost/filled") != 3 {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestTotalCalls(t *testing.T) {
	t.Parallel()
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.001500         960      1036        63 futex
 40.00    0.001000          20        64           read
------ ----------- ----------- --------- --------- ----------------
100.00    0.002500                  1100        63 total
`
	if n, err := totalCalls(table); err != nil || n != 1100 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := totalCalls("strace: exec failed\n"); err == nil {
		t.Error("nothing was counted")
	}
}

// What builders with daemons are called with.
func TestBuildArgs(t *testing.T) {
	t.Parallel()
	p := place{context: "/c", n: 7, copy: "3"}
	for _, tt := range []struct {
		row  row
		want string
	}{
		{row{}, "--no-cache -t localhost/bench3 /c"},
		{row{cached: true}, "-t localhost/bench3 /c"},
		{row{args: []string{"build", "--build-arg", "N=$N", "$CONTEXT"}}, "--build-arg N=7 /c"},
	} {
		if args := buildArgs(tt.row, p); strings.Join(args, " ") != tt.want {
			t.Errorf("%+v: %q", tt.row, args)
		}
	}
}

// Each tool has a command for each row, or a reason why not.
func TestCommands(t *testing.T) {
	t.Parallel()
	missing := map[string]int{}
	tools := []tool{
		builder{tool: "strata", program: "strata"}, unprivileged{builder: builder{tool: userTool}}, builder{tool: "buildah"}, builder{tool: "podman"},
		docker{&daemons{}, "docker", "dockerd", ""}, buildctl{&daemons{}, "buildctl", "buildkitd", "", ""},
	}
	for _, tool := range tools {
		for _, r := range rows(small) {
			cmd, err := command(tool, r, place{dir: t.TempDir(), registry: "127.0.0.1:1"})
			var why absent
			switch {
			case err == nil && cmd != nil && len(cmd.Args) > 0:
			case errors.As(err, &why) && why != "":
				missing[tool.name()]++
			default:
				t.Errorf("%s: %s: %v, %v", tool.name(), r.name, cmd, err)
			}
		}
	}
	if missing["strata"] != 0 || missing["buildah"] != 1 || missing[userTool] != 1 || missing["podman"] == 0 || missing["buildctl"] == 0 {
		t.Errorf("rows missing: %v", missing)
	}
}

// Of several commands at once, one that fails is the failure of all.
func TestTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		script string
		fails  bool
	}{{`touch "$DIR/it's $0"`, false}, {`[ $0 != 2 ]`, true}} {
		cmd, err := together(echoTool{text: tt.script}, row{parallel: 4}, place{dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := measure(t.Context(), cmd, order{}); (err != nil) != tt.fails {
			t.Errorf("%s: %v", tt.script, err)
		}
	}
	if made, _ := filepath.Glob(filepath.Join(dir, "it's [0-3]")); len(made) != 4 {
		t.Errorf("made: %v", made)
	}
}

// echoTool runs a script with the number of the copy as $0.
type echoTool struct {
	builder
	text string
}

func (e echoTool) command(_ row, p place) (*exec.Cmd, error) {
	cmd := exec.Command("sh", "-c", e.text, strings.ReplaceAll(p.built(), "localhost/bench", ""))
	cmd.Env = append(os.Environ(), p.variables()...)
	return cmd, nil
}
