package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

const document = `
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: "true"
containerEdits:
  env: [ALL=1]
devices:
  - name: foo
    containerEdits:
      env: [FOO=injected]
      additionalGids: [0, 44, 44]
  - name: bar
    annotations:
      org.mobyproject.buildkit.device.class: class1
      org.mobyproject.buildkit.device.autoallow: "false"
    containerEdits:
      deviceNodes:
        - path: /dev/bar
          hostPath: /dev/null
          type: c
          major: 1
          minor: 3
          permissions: rw
  - name: baz
    annotations:
      org.mobyproject.buildkit.device.class: class1
    containerEdits:
      mounts:
        - {hostPath: /etc, containerPath: /vendor, options: [ro, nosuid]}
  - name: hook
    containerEdits:
      hooks:
        - {hookName: createContainer, path: /usr/bin/vendor-hook, args: [a]}
`

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dirs ...string) *Registry {
	t.Helper()
	r, err := Open(dirs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The forms of a request are those of BuildKit's reference, "RUN --device".
func TestFind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "a.yaml", document)
	r := open(t, dir)
	for request, want := range map[string]string{
		"vendor1.com/device=foo": "foo",
		"vendor1.com/device":     "bar", // the first by name
		"vendor1.com/device=*":   "bar baz foo hook",
		"class1":                 "bar baz",
		"vendor1.com/device=no":  "",
		"vendor2.com/device":     "",
		"":                       "",
	} {
		var names []string
		for _, n := range r.Find(request) {
			names = append(names, strings.TrimPrefix(n, "vendor1.com/device="))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q: %q, want %q", request, got, want)
		}
	}
	for name, want := range map[string]bool{"foo": true, "bar": false} {
		if d, err := r.Get("vendor1.com/device=" + name); err != nil || d.AutoAllow != want {
			t.Errorf("%s: %+v %v", name, d, err)
		}
	}
}

func TestEdits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "a.yaml", document)
	r := open(t, dir)
	e, err := r.Edits([]string{"vendor1.com/device=foo", "vendor1.com/device=bar", "vendor1.com/device=baz", "vendor1.com/device=foo"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Env":["ALL=1","FOO=injected"],"Nodes":[{"HostPath":"/dev/null","Path":"/dev/bar","Permissions":"rw"}],` +
		`"Mounts":[{"HostPath":"/etc","Path":"/vendor","Options":["ro","nosuid"]}],"GIDs":[44]}`
	if e.Text() != want {
		t.Errorf("%s\nwant %s", e.Text(), want)
	}
	if _, err := r.Edits([]string{"vendor1.com/device=hook"}); !errors.Is(err, define.ErrUnsupported) || !strings.Contains(err.Error(), "createContainer /usr/bin/vendor-hook") {
		t.Error(err)
	}
	if _, err := r.Edits([]string{"vendor1.com/device=none"}); !errors.Is(err, define.ErrNotFound) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}

// What a specification says of a node is what the host's node is, or an error.
func TestNodes(t *testing.T) {
	t.Parallel()
	mode, owner := uint32(0o1), uint32(12345)
	for what, n := range map[string]SpecNode{
		"":             {Path: "/dev/null"},
		"the type":     {Path: "/dev/null", Type: "b"},
		"the number":   {Path: "/dev/x", HostPath: "/dev/null", Type: "u", Major: 1, Minor: 5},
		"the mode":     {Path: "/dev/null", FileMode: &mode},
		"is no device": {Path: "/etc/passwd"},
		"no such file": {Path: "/dev/no-such-node"},
	} {
		_, err := n.node()
		if what == "" && err != nil || what != "" && (err == nil || !strings.Contains(err.Error(), what)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if os.Getuid() == 0 {
		n := SpecNode{Path: "/dev/null", UID: &owner}
		if _, err := n.node(); err == nil || !strings.Contains(err.Error(), "the owner") {
			t.Error(err)
		}
	}
}

// The later directory wins; two of a name in one directory are none; what
// cannot be read leaves the others alone and is named.
func TestDirs(t *testing.T) {
	t.Parallel()
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	spec := func(names ...string) string {
		s := "cdiVersion: 1.0.0\nkind: v.com/c\ndevices:\n"
		for _, n := range names {
			s += "- {name: " + n + ", containerEdits: {env: [A=b]}}\n"
		}
		return s
	}
	put(t, one, "a.yaml", spec("a", "b"))
	put(t, two, "b.yaml", spec("b", "c"))
	put(t, two, "c.yaml", spec("c", "d"))
	put(t, two, "bad.json", "{")
	put(t, two, "ignored.txt", "{")
	if err := unix.Mkfifo(filepath.Join(two, "fifo.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := open(t, one, filepath.Join(one, "missing"), two)
	var got []string
	for _, d := range r.Devices() {
		got = append(got, d.Name+" "+filepath.Base(d.File))
	}
	if want := []string{"v.com/c=a a.yaml", "v.com/c=b b.yaml", "v.com/c=d c.yaml"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	text := errors.Join(r.Broken()...).Error()
	for _, want := range []string{"bad.json", "fifo.yaml: is no regular file", "v.com/c=c is in"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s: no %q", text, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	device := func(edits string) string {
		return `{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"a","containerEdits":` + edits + `}]}`
	}
	for text, want := range map[string]string{
		"":  "empty",
		"[": "",
		`{"cdiVersion":"9.0.0","kind":"v.com/c","devices":[]}`:           "cdiVersion",
		`{"cdiVersion":"0.6.0","kind":"v","devices":[{"name":"a"}]}`:     "vendor/class",
		`{"cdiVersion":"0.6.0","kind":"../c","devices":[{"name":"a"}]}`:  "vendor/class",
		`{"cdiVersion":"0.6.0","kind":"v/c","devices":[]}`:               "no devices",
		`{"cdiVersion":"0.6.0","kind":"v/c","devices":[{"name":"-"}]}`:   "device name",
		`{"cdiVersion":"0.6.0","kind":"v/c","devices":[{"nom":"a"}]}`:    "nom",
		device(`{"env":["=x"]}`):                                         "NAME=value",
		device(`{"deviceNodes":[{"path":"dev/x"}]}`):                     "absolute",
		device(`{"deviceNodes":[{"path":"/dev/x","type":"s"}]}`):         "type",
		device(`{"deviceNodes":[{"path":"/dev/x","permissions":"rx"}]}`): "rwm",
		device(`{"mounts":[{"hostPath":"a","containerPath":"/b"}]}`):     "absolute",
		device(`{"hooks":[{"path":"/x"}]}`):                              "hook",
		device(`{}`) + "{}":                                              "follows",
	} {
		for _, isYAML := range []bool{false, true} {
			if isYAML && strings.HasSuffix(text, "}{}") {
				text = strings.TrimSuffix(text, "{}") + "\n---\n{}"
			}
			_, err := ParseSpec([]byte(text), isYAML)
			if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s (YAML %v): %v, want %q", text, isYAML, err, want)
			}
		}
	}
	bomb := "cdiVersion: 1.0.0\nkind: v.com/c\nannotations: {a: &a x}\ndevices:\n- name: a\n  containerEdits:\n    env: &e0 [A=b]\n"
	if _, err := ParseSpec([]byte(bomb+strings.Repeat("#", MaxSpec)), true); err == nil {
		t.Error("too large")
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(document), true)
	f.Add([]byte(`{"cdiVersion":"1.1.0","kind":"v.com/c","devices":[{"name":"a:1","containerEdits":{"intelRdt":{"closID":"x"},"netDevices":[{"hostInterfaceName":"eth0","name":"x"}]}}]}`), false)
	f.Add([]byte("a: &a [*a]"), true)
	f.Add([]byte("cdiVersion: 1.0.0\nkind: a/b\ndevices: [{name: c, containerEdits: {env: [!!binary aGk9]}}]"), true)
	f.Fuzz(func(t *testing.T, data []byte, isYAML bool) {
		s, err := ParseSpec(data, isYAML)
		if err != nil {
			if !errors.Is(err, define.ErrInvalid) || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Fatalf("%q", err)
			}
			return
		}
		for i := range s.Devices {
			d := newDevice(s, &s.Devices[i], "f")
			if !IsName(d.Name) {
				t.Fatalf("%q is no name", d.Name)
			}
			r := &Registry{devices: []Device{d}}
			if got := r.Find(d.Name); !slices.Equal(got, []string{d.Name}) {
				t.Fatalf("%q: %q", d.Name, got)
			}
			if e, err := r.Edits([]string{d.Name}); err == nil && e.Text() == "" {
				t.Fatal("no text")
			}
		}
	})
}
