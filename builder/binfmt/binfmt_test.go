package binfmt

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stratabuild/strata/define"
)

// As Linux 6.1 shows what Debian's qemu-user-static registers.
const qemuS390x = `enabled
interpreter /usr/libexec/qemu-binfmt/s390x-binfmt-P
flags: POCF
offset 0
magic 7f454c4602020100000000000000000000020016
mask ffffffffffffff00fffffffffffffffffffeffff
`

func registry(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func foreign() define.Platform {
	if runtime.GOARCH == "s390x" {
		return define.Platform{OS: "linux", Architecture: "arm64"}
	}
	return define.Platform{OS: "linux", Architecture: "s390x"}
}

func TestFind(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH == "s390x" {
		t.Skip("the registration is for s390x, which this machine is")
	}
	for name, tc := range map[string]struct {
		files map[string]string
		want  string // of the error; "" is a handler
		fixed bool
	}{
		"fixed":             {map[string]string{"status": "enabled\n", "qemu-s390x": qemuS390x}, "", true},
		"any name":          {map[string]string{"status": "enabled\n", "rosetta": qemuS390x}, "", true},
		"not fixed":         {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "POCF", "POC", 1)}, "", false},
		"disabled":          {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "enabled", "disabled", 1)}, "is switched off: write 1 to", false},
		"all disabled":      {map[string]string{"status": "disabled\n", "q": qemuS390x}, "is switched off", false},
		"another":           {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "020016", "020015", 1)}, "install qemu-user-static", false},
		"none":              {map[string]string{"status": "enabled\n"}, "install qemu-user-static", false},
		"by name's ending":  {map[string]string{"status": "enabled\n", "java": "enabled\ninterpreter /j\nflags: \nextension .class\n"}, "install", false},
		"malformed":         {map[string]string{"status": "enabled\n", "q": "enabled\nmagic zz\n", "r": "magic 7f\noffset 99999999999999999999\n", "s": ""}, "install", false},
		"offset beyond":     {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "offset 0", "offset 200", 1)}, "install", false},
		"negative offset":   {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "offset 0", "offset -4", 1)}, "install", false},
		"mask is shorter":   {map[string]string{"status": "enabled\n", "q": strings.Replace(qemuS390x, "fffffffffffeffff", "fe", 1)}, "", true},
		"two, one disabled": {map[string]string{"status": "enabled\n", "a": strings.Replace(qemuS390x, "enabled", "disabled", 1), "b": qemuS390x}, "", true},
	} {
		h, err := find(registry(t, tc.files), define.Platform{OS: "linux", Architecture: "s390x"}, t.TempDir())
		switch {
		case tc.want != "":
			if !errors.Is(err, define.ErrUnsupported) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %v, want %q", name, err, tc.want)
			}
		case err != nil || h == nil || h.Fixed != tc.fixed || h.Interpreter != "/usr/libexec/qemu-binfmt/s390x-binfmt-P":
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
}

func TestFindNative(t *testing.T) {
	t.Parallel()
	if h, err := find("/nonexistent", define.HostPlatform(), ""); h != nil || err != nil {
		t.Errorf("this machine's own platform: %+v %v", h, err)
	}
	if !Native(define.HostPlatform()) || Native(foreign()) || Native(define.Platform{OS: "windows", Architecture: runtime.GOARCH}) {
		t.Error("Native is wrong")
	}
	for _, p := range []define.Platform{{OS: "windows", Architecture: runtime.GOARCH}, {OS: runtime.GOOS, Architecture: "wasm"}} {
		if _, err := find("/nonexistent", p, t.TempDir()); !errors.Is(err, define.ErrUnsupported) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// TestTry: without binfmt_misc the kernel is asked, and no file is left.
func TestTry(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	h, err := find("/nonexistent", foreign(), tmp)
	if err == nil && h == nil || err != nil && !errors.Is(err, define.ErrUnsupported) {
		t.Errorf("%+v %v", h, err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
}

func TestElfHead(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"arm64": "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00\x01",
		"arm":   "\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00\x01",
		"s390x": "\x7fELF\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16\x00",
	}
	for arch, head := range want {
		if got, ok := elfHead(arch); !ok || !strings.HasPrefix(string(got), head) {
			t.Errorf("%s: %x", arch, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(qemuS390x)
	f.Add("enabled\noffset 255\nmagic 00\nmask 00\n")
	head, _ := elfHead("s390x")
	f.Fuzz(func(_ *testing.T, text string) {
		if r, ok := parse("x", text); ok {
			r.matches(head)
		}
	})
}
