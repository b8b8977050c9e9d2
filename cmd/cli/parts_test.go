package cli

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/imagebuildah"
)

func TestParseOutput(t *testing.T) {
	t.Parallel()
	none := map[string]string{}
	for in, want := range map[string]imagebuildah.Output{
		"-":                              {Type: "tar", Dest: "-"},
		"out":                            {Type: "local", Dest: "out"},
		"./a,b":                          {Type: "local", Dest: "./a,b"},
		"type=local,dest=out":            {Type: "local", Dest: "out", Attrs: none},
		"type=oci,dest=a.tar":            {Type: "oci", Dest: "a.tar", Attrs: none},
		`type=tar,"dest=with,comma"`:     {Type: "tar", Dest: "with,comma", Attrs: none},
		"type=docker":                    {Type: "image", Attrs: none},
		"type=docker,dest=-":             {Type: "docker", Dest: "-", Attrs: none},
		"TYPE=image,push=true,name=x":    {Type: "image", Attrs: map[string]string{"push": "true", "name": "x"}},
		"type=registry,compression=zstd": {Type: "registry", Attrs: map[string]string{"compression": "zstd"}},
	} {
		got, err := parseOutput(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("parseOutput(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func FuzzParseOutput(f *testing.F) {
	f.Add("type=oci,dest=x")
	f.Add(`type=tar,"dest=a""b"`)
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseOutput(s) })
}

func TestOutputNames(t *testing.T) {
	t.Parallel()
	outs, names, err := outputs([]string{"type=image,\"name=a,b\"", "type=registry,name=r.example/c"}, true)
	if err != nil || len(outs) != 3 || !reflect.DeepEqual(names, []string{"a", "b", "r.example/c"}) {
		t.Errorf("%+v, %q, %v", outs, names, err)
	}
}

func TestParseVolume(t *testing.T) {
	t.Parallel()
	got, err := parseVolume("/src:/dst:ro,noexec")
	want := isolation.Volume{Source: "/src", Target: "/dst", ReadOnly: true, Options: []string{"ro", "noexec"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = parseVolume("rel:/dst"); err != nil || !filepath.IsAbs(got.Source) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestResultFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "id")
	r := resultFile{"iidfile", path}
	for _, content := range []string{"one", "two"} {
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the earlier result is still there")
		}
		if err := r.write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Errorf("%q, %v", b, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	// What is no regular file stays what it is.
	target := filepath.Join(dir, "target")
	link := resultFile{"iidfile", filepath.Join(dir, "link")}
	if err := os.Symlink(target, link.path); err != nil {
		t.Fatal(err)
	}
	if err := link.check(); err != nil {
		t.Fatal(err)
	}
	if err := link.write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(link.path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%v, %v", fi, err)
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	null := resultFile{"iidfile", os.DevNull}
	if err := null.check(); err != nil {
		t.Error(err)
	}
	if err := null.write([]byte("x")); err != nil {
		t.Error(err)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"build", "images", "inspect", "no-cache", "tag"}
	for in, want := range map[string]string{
		"biuld": "build", "image": "images", "inspetc": "inspect", "nocache": "no-cache", "tga": "tag", "zzz": "", "x": "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for in, want := range map[int64]string{0: "0 B", 999: "999 B", 1234567: "1.23 MB", 2140000: "2.14 MB"} {
		if got := sizeText(in); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestMatching(t *testing.T) {
	t.Parallel()
	for start, want := range map[string][]string{
		"": {"localhost/hello:1"}, "hel": {"hello:1"}, "localhost/h": {"localhost/hello:1"}, "x": nil,
	} {
		if got := matching("localhost/hello:1", start); !reflect.DeepEqual(got, want) {
			t.Errorf("matching(%q) = %q, want %q", start, got, want)
		}
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	f, err := parseListFormat(`table {{.Name}}\t{{.Size}}`, imageRow{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := render(out, f, []imageRow{{Name: "localhost/one", Size: "1 B"}}, imageHeadings); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if want := "REPOSITORY      SIZE\nlocalhost/one   1 B\n"; err != nil || string(b) != want {
		t.Errorf("%q, want %q, %v", b, want, err)
	}
}
