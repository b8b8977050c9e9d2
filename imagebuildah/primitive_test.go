package imagebuildah_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
	"github.com/stratabuild/strata/tests/baseimage"
)

// events collects what is reported.
type events struct {
	mu   sync.Mutex
	list []define.Event
}

func (l *events) Event(e define.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Data = nil
	l.list = append(l.list, e)
}

func (l *events) kinds(want ...define.EventKind) []define.EventKind {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kinds []define.EventKind
	for _, e := range l.list {
		for _, k := range want {
			if e.Kind == k {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds
}

// openEngine opens an engine on the store that all tests of the process share.
func openEngine(t *testing.T) (*builder.Engine, *events) {
	t.Helper()
	l := &events{}
	o := exampleOptions()
	o.Listener = l
	e, err := builder.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, l
}

// busybox is an image without a registry: an OCI layout.
var busybox = sync.OnceValue(func() string {
	content, err := baseimage.Busybox(context.Background(), scratch)
	if err != nil {
		panic(err)
	}
	dir := filepath.Join(scratch, "base")
	if _, err := baseimage.Write(dir, baseimage.Ref, content); err != nil {
		panic(err)
	}
	return "oci:" + dir
})

func from(t *testing.T, e *builder.Engine, image string) *builder.Container {
	t.Helper()
	c, err := e.From(context.Background(), builder.FromOptions{Image: image})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// read gives a file of the container, "-" when there is none.
func read(t *testing.T, c *builder.Container, name string) string {
	t.Helper()
	text := "-"
	err := c.View(context.Background(), func(root *copier.Root) error {
		b, err := root.ReadFile(name, 4<<20)
		if err == nil {
			text = string(b)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, dir string, files ...string) string {
	t.Helper()
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCopyFromHost(t *testing.T) {
	e, l := openEngine(t)
	c := from(t, e, "scratch")
	dir := write(t, t.TempDir(), "a=A", "tree/b=B", "tree/sub/c=C", "x1=1", "x2=2")
	t.Chdir(dir)
	for _, step := range []struct {
		sources []string
		dest    string
		parents bool
	}{
		{[]string{"a"}, "/one", false},
		{[]string{filepath.Join(dir, "a")}, "/absolute/", false},
		{[]string{"tree"}, "/tree", false},
		{[]string{"x*"}, "/glob/", false},
		{[]string{"./tree/../a"}, "", false},
		{[]string{"tree/sub/c"}, "/parents/", true},
		{[]string{"tree/./sub/c"}, "/pivot/", true},
	} {
		o := imagebuildah.CopyOptions{Sources: step.sources, Dest: step.dest, Parents: step.parents}
		if _, err := imagebuildah.Copy(context.Background(), c, o); err != nil {
			t.Errorf("%s: %v", step.sources, err)
		}
	}
	for name, want := range map[string]string{"/one": "A", "/absolute/a": "A", "/tree/b": "B", "/tree/sub/c": "C",
		"/glob/x1": "1", "/glob/x2": "2", "/a": "A", "/parents/tree/sub/c": "C", "/pivot/sub/c": "C"} {
		if got := read(t, c, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := len(c.Image.History); n != 0 {
		t.Errorf("history has %d entries", n)
	}
	if k := l.kinds(define.EventStepStart, define.EventStepDone); len(k) != 0 {
		t.Errorf("events: %v", k)
	}
}

// TestCopyDigest: neither times nor the destination count.
func TestCopyDigest(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	one := write(t, t.TempDir(), "d/a=A", "d/b=B")
	two := write(t, t.TempDir(), "d/b=B", "d/a=A")
	three := write(t, t.TempDir(), "d/b=B", "d/a=C")
	var got []string
	for i, dir := range []string{one, two, three} {
		done, err := imagebuildah.Copy(context.Background(), c, imagebuildah.CopyOptions{
			Sources: []string{filepath.Join(dir, "d")}, Dest: "/" + string(rune('0'+i)), StepOptions: imagebuildah.StepOptions{AddHistory: true}})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, done.Digest.Encoded())
	}
	if got[0] != got[1] || got[0] == got[2] || len(got[0]) != 64 {
		t.Errorf("digests %v", got)
	}
	h := c.Image.History
	if len(h) != 3 || !h[0].EmptyLayer || !strings.HasSuffix(h[0].CreatedBy, "/d /0") {
		t.Errorf("history %+v", h)
	}
}

func TestCopyContextDir(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	dir := write(t, t.TempDir(), "in=1", "out=2", ".containerignore=out\n", "other=in\n")
	for _, step := range []struct {
		source, ignore string
		want           error
	}{{"in", "", nil}, {"/in", "", nil}, {"out", "", define.ErrNotFound}, {"in", "other", define.ErrNotFound}, {"out", "other", nil},
		{"../../etc/passwd", "", define.ErrNotFound}} {
		_, err := imagebuildah.Copy(context.Background(), c, imagebuildah.CopyOptions{
			Sources: []string{step.source}, Dest: "/d/", ContextDir: dir, IgnoreFile: step.ignore})
		if !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
			t.Errorf("%+v: %v", step, err)
		}
	}
}

func TestCopyRefuses(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	dir := write(t, t.TempDir(), "a=A", "b=B")
	t.Chdir(dir)
	for name, o := range map[string]imagebuildah.CopyOptions{
		"no source":         {},
		"empty source":      {Sources: []string{""}},
		"missing":           {Sources: []string{"nothing"}},
		"two into a file":   {Sources: []string{"a", "b"}, Dest: "/f"},
		"chmod":             {Sources: []string{"a"}, Chmod: "u+q"},
		"chown":             {Sources: []string{"a"}, Chown: "nobody"},
		"stdin of copy":     {Sources: []string{"-"}, Stdin: strings.NewReader("")},
		"stdin of text":     {Sources: []string{"-"}, Add: true, Stdin: strings.NewReader("text")},
		"stdin and others":  {Sources: []string{"-", "a"}, Add: true, Dest: "/", Stdin: strings.NewReader("")},
		"ignore file alone": {Sources: []string{"a"}, IgnoreFile: "x"},
		"checksum of file":  {Sources: []string{"a"}, Checksum: "sha256:" + strings.Repeat("0", 64)},
		"keep git dir":      {Sources: []string{"a"}, Add: true, KeepGitDir: true},
		"context and from":  {Sources: []string{"a"}, ContextDir: ".", From: "scratch"},
	} {
		if _, err := imagebuildah.Copy(context.Background(), c, o); err == nil {
			t.Errorf("%s is accepted", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: several lines: %v", name, err)
		}
	}
}

func TestAddArchive(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "d/f", Mode: 0o644, Size: 2, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive.Write(make([]byte, 1<<20)) // as GNU tar pads
	dir := write(t, t.TempDir(), "a.tar="+archive.String())
	no := false
	var digests []string
	stdin := bytes.NewReader(archive.Bytes())
	for _, o := range []imagebuildah.CopyOptions{
		{Add: true, Sources: []string{dir + "/a.tar"}, Dest: "/unpacked"},
		{Add: true, Sources: []string{dir + "/a.tar"}, Dest: "/whole/", Unpack: &no},
		{Sources: []string{dir + "/a.tar"}, Dest: "/copied/"},
		{Add: true, Sources: []string{"-"}, Dest: "/stdin", Stdin: stdin},
	} {
		done, err := imagebuildah.Copy(context.Background(), c, o)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, string(done.Digest))
	}
	if stdin.Len() != 0 {
		t.Errorf("%d bytes of the stream are left", stdin.Len())
	}
	for name, want := range map[string]string{"/unpacked/d/f": "hi", "/whole/a.tar": archive.String(), "/copied/a.tar": archive.String(), "/stdin/d/f": "hi"} {
		if got := read(t, c, name); got != want {
			t.Errorf("%s: %.20q", name, got)
		}
	}
	if digests[0] != digests[1] || digests[1] != digests[2] || digests[3] == "" {
		t.Errorf("digests %v", digests)
	}
}

func TestRunLeavesChangesOpen(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, busybox())
	o := imagebuildah.CommandOptions{Args: []string{"sh", "-c", "echo $GREETING > /file; pwd >> /file"},
		Env: []string{"GREETING=hello"}, Dir: "/tmp", StepOptions: imagebuildah.StepOptions{AddHistory: true}}
	if _, err := imagebuildah.Run(context.Background(), c, o); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "/file"); got != "hello\n/tmp\n" || !c.Dirty() {
		t.Errorf("file %q, dirty %v", got, c.Dirty())
	}
	h := c.Image.History
	if last := h[len(h)-1]; !last.EmptyLayer || last.CreatedBy != "RUN |1 GREETING=hello sh -c echo $GREETING > /file; pwd >> /file" {
		t.Errorf("history %+v", last)
	}
	_, err := imagebuildah.Run(context.Background(), c, imagebuildah.CommandOptions{Args: []string{"sh", "-c", "echo x > /left; exit 3"}})
	if err == nil || read(t, c, "/left") != "x\n" {
		t.Errorf("a failing command: %v, left %q", err, read(t, c, "/left"))
	}
}

func TestRunMounts(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, busybox())
	dir := write(t, t.TempDir(), "with space/f=F")
	t.Chdir(dir)
	run := func(command string, mounts ...string) error {
		_, err := imagebuildah.Run(context.Background(), c, imagebuildah.CommandOptions{Args: []string{"sh", "-c", command}, Mounts: mounts,
			Secrets: []imagebuildah.Secret{{ID: "s", Value: []byte("hidden")}}})
		return err
	}
	if err := run("cp /m/f /got; cat /run/secrets/s >> /got; echo x > /t/x", "type=bind,source=with space,target=/m",
		"type=secret,id=s", "type=tmpfs,target=/t"); err != nil {
		t.Fatal(err)
	}
	if err := run("cat /m/f >> /got; echo y > /m/f; cat /m/f >> /got", "type=bind,source="+dir+"/with space,target=/m,rw"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "/got"); got != "FhiddenFy\n" {
		t.Errorf("got %q", got)
	}
	if b, err := os.ReadFile(dir + "/with space/f"); err != nil || string(b) != "F" {
		t.Errorf("the host's file: %q, %v", b, err)
	}
	for _, m := range []string{"type=bind", "type=nothing,target=/x", "target", "type=bind,source=missing,target=/x", "a\nb"} {
		if err := run("true", m); err == nil {
			t.Errorf("%q is accepted", m)
		}
	}
}

func TestCached(t *testing.T) {
	e, l := openEngine(t)
	dir := write(t, t.TempDir(), "f=1")
	script := func(file string) (hits []bool, c *builder.Container) {
		t.Helper()
		write(t, dir, "f="+file)
		c = from(t, e, busybox())
		step := imagebuildah.StepOptions{Cached: true, Script: "/script"}
		copied, err := imagebuildah.Copy(context.Background(), c, imagebuildah.CopyOptions{StepOptions: step, Sources: []string{dir + "/f"}, Dest: "/f"})
		if err != nil {
			t.Fatal(err)
		}
		ran, err := imagebuildah.Run(context.Background(), c, imagebuildah.CommandOptions{StepOptions: step, Args: []string{"sh", "-c", "cat /f /f > /ff"}})
		if err != nil {
			t.Fatal(err)
		}
		return []bool{copied.Cached, ran.Cached}, c
	}
	for _, run := range []struct {
		file string
		want []bool
	}{{"1", []bool{false, false}}, {"1", []bool{true, true}}, {"2", []bool{false, false}}, {"1", []bool{true, true}}} {
		hits, c := script(run.file)
		if !reflect.DeepEqual(hits, run.want) {
			t.Errorf("file %s: hits %v", run.file, hits)
		}
		if got := read(t, c, "/ff"); got != run.file+run.file {
			t.Errorf("ff: %q", got)
		}
		if c.Dirty() {
			t.Error("changes are open")
		}
	}
	if k := l.kinds(define.EventStepCached); len(k) != 4 {
		t.Errorf("events %v", k)
	}
	// A failing step leaves nothing.
	_, c := script("1")
	_, err := imagebuildah.Run(context.Background(), c, imagebuildah.CommandOptions{StepOptions: imagebuildah.StepOptions{Cached: true},
		Args: []string{"sh", "-c", "echo > /left; exit 1"}})
	if err == nil || c.Dirty() || read(t, c, "/left") != "-" {
		t.Errorf("failing: %v", err)
	}
}

func TestChange(t *testing.T) {
	e, _ := openEngine(t)
	c := from(t, e, "scratch")
	c.Image.Config.Cmd = []string{"old"}
	err := imagebuildah.Change(context.Background(), c, []string{"ENV A=1 B=\"two words\"", "env PATH=$PATH:/opt", "CMD run $A", "entrypoint [\"/e\"]",
		"WORKDIR /a", "WORKDIR b", "EXPOSE 80 90-91/udp", "LABEL l=v", "USER u:g", "VOLUME /v", "STOPSIGNAL SIGTERM", "SHELL [\"/bin/ash\",\"-c\"]",
		"HEALTHCHECK --retries=2 CMD true", "ONBUILD RUN make", "MAINTAINER somebody"})
	if err != nil {
		t.Fatal(err)
	}
	g := c.Image.Config
	if g.WorkingDir != "/a/b" || g.User != "u:g" || g.Labels["l"] != "v" || len(g.ExposedPorts) != 3 || g.StopSignal != "SIGTERM" ||
		!reflect.DeepEqual(g.Cmd, []string{"/bin/sh", "-c", "run $A"}) || !reflect.DeepEqual(g.Entrypoint, []string{"/e"}) ||
		g.Healthcheck.Retries != 2 || len(g.OnBuild) != 1 || c.Image.Author != "somebody" || len(c.Image.History) != 0 {
		t.Errorf("config %+v", g)
	}
	if env := strings.Join(g.Env, " "); !strings.HasSuffix(env, ":/opt A=1 B=two words") {
		t.Errorf("env %s", env)
	}
	for _, text := range []string{"", "RUN true", "FROM x", "COPY a b", "ARG x", "EXPOZE 1", "EXPOSE x", "STOPSIGNAL SIGNOTHING", "ENV", "LABEL x=\n=",
		"CMD a\nCMD b", "ONBUILD FROM x"} {
		if err := imagebuildah.Change(context.Background(), c, []string{"USER nobody", text}); !errors.Is(err, define.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
		if c.Image.Config.User != "u:g" {
			t.Errorf("%q: a part was applied", text)
		}
	}
}
