package main

import (
	"context"
	"encoding/json"
	"fmt"
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

var small = scale{
	steps: 2, manySteps: 3, files: 150, fileSize: 10, bigSize: 1 << 20, medium: 2, runFiles: 10, images: 2, layers: 2,
	transfer: 1, blobs: 2, sleep: "0.01",
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
	o := options{runs: 2, only: regexp.MustCompile(""), tools: []string{"yardstick"}, json: file, dir: dir, scale: small}
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
	want := 0
	for _, row := range rows(small) {
		if row.script != "" {
			want++
		}
	}
	if len(r.Results) != want {
		t.Errorf("%d results, want %d", len(r.Results), want)
	}
	for _, x := range r.Results {
		if len(x.Seconds) != 2 || x.Median <= 0 || x.RSS <= 0 {
			t.Errorf("%+v", x)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestMeasureFails(t *testing.T) {
	t.Parallel()
	_, err := measure(context.Background(), exec.Command("sh", "-c", "echo why >&2; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("%v", err)
	}
	if _, err := measure(context.Background(), exec.Command("/no/such/program")); err == nil {
		t.Error("a program that does not exist was measured")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := measure(ctx, exec.Command("sleep", "60")); err == nil {
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
		Machine: "m", Runs: 3, Versions: map[string]string{"strata": "1", "buildah": "2", "yardstick": "3"},
		Results: []result{
			{Row: "a", Tool: "strata", Median: 0.5, RSS: 40 << 20, CPU: 0.25}, {Row: "a", Tool: "buildah", Median: 5, RSS: 1536 << 10},
			{Row: "longer", Tool: "strata", Median: 0.25, RSS: 3 << 20}, {Row: "longer", Tool: "yardstick", Median: 0.125, RSS: 1 << 18},
		},
		tools: []string{"strata", "buildah", "yardstick"},
	}
	const want = `m
median of 3 runs
strata: 1
buildah: 2
yardstick: 3

row      strata  buildah  yardstick  buildah / strata  yardstick / strata  strata RSS  buildah RSS  yardstick RSS  strata CPU  buildah CPU  yardstick CPU
a       0.500 s  5.000 s          -           10.00 x                   -      40 MiB        2 MiB              -     0.250 s      0.000 s              -
longer  0.250 s        -    0.125 s                 -              0.50 x       3 MiB            -          0 MiB     0.000 s            -        0.000 s
`
	var b strings.Builder
	r.print(&b)
	if b.String() != want {
		t.Errorf("\n%s", b.String())
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
	o := options{runs: 1, only: regexp.MustCompile("^run true$|^2 RUN echo, no cache$"), tools: []string{"strata", "rootless"}, json: file, dir: dir, scale: small}
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
		r := report{Machine: "m", Results: []result{{Row: "a", Tool: "strata", Median: seconds}, {Row: fmt.Sprint("only", i), Tool: "strata", Median: 1}}}
		if err := r.write(files[i]); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if err := compare(&b, files[0], files[1]); err != nil {
		t.Fatal(err)
	}
	const want = `row      tool      old      new  new / old
a      strata  2.000 s  1.000 s     0.50 x
only0  strata  1.000 s        -          -
only1  strata        -  1.000 s          -
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
	p := place{context: "/c", n: 7}
	for _, tt := range []struct {
		row  row
		want string
	}{
		{row{}, "--no-cache -t localhost/bench /c"},
		{row{cached: true}, "-t localhost/bench /c"},
		{row{args: []string{"build", "--build-arg", "N=$N", "$CONTEXT"}}, "--build-arg N=7 /c"},
		{row{args: []string{"images"}}, ""},
		{row{timed: "B from x"}, ""},
	} {
		if args, _ := buildArgs(tt.row, p); strings.Join(args, " ") != tt.want {
			t.Errorf("%+v: %q", tt.row, args)
		}
	}
}
