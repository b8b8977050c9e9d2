package main

import (
	"context"
	"encoding/json"
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

var small = scale{steps: 2, files: 150, fileSize: 10, bigSize: 1 << 20, sleep: "0.01"}

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
	if len(r.Results) != len(rows(small))-1 { // one row has no yardstick
		t.Errorf("%d results", len(r.Results))
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
			{Row: "a", Tool: "strata", Median: 0.5, RSS: 40 << 20}, {Row: "a", Tool: "buildah", Median: 5, RSS: 1536 << 10},
			{Row: "longer", Tool: "strata", Median: 0.25, RSS: 3 << 20}, {Row: "longer", Tool: "yardstick", Median: 0.125},
		},
		tools: []string{"strata", "buildah", "yardstick"},
	}
	const want = `m
median of 3 runs
strata: 1
buildah: 2
yardstick: 3

row      strata  buildah  yardstick  buildah / strata  yardstick / strata  strata RSS  buildah RSS  yardstick RSS
a       0.500 s  5.000 s          -           10.00 x                   -      40 MiB        2 MiB              -
longer  0.250 s        -    0.125 s                 -              0.50 x       3 MiB            -          0 MiB
`
	var b strings.Builder
	r.print(&b)
	if b.String() != want {
		t.Errorf("\n%s", b.String())
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	if err := bench(context.Background(), options{runs: 0}); err == nil {
		t.Error("no runs")
	}
	o := options{runs: 1, only: regexp.MustCompile(""), tools: []string{"docker"}, dir: t.TempDir(), scale: small}
	if err := bench(context.Background(), o); err == nil || !strings.Contains(err.Error(), "docker") {
		t.Errorf("%v", err)
	}
}
