package early

import (
	"bytes"
	"reflect"
	"testing"
)

func sample() *Config {
	return &Config{
		Flags: LoopbackUp | SetGroups, Devices: DevicesCover, Hostname: "h", AppArmor: "profile", Rows: 3, Columns: 4, Joins: []Join{{FD: 5, Type: 1 << 30}},
		Mounts: []Mount{
			{Kind: MountFS, Flags: TargetKernel, Target: "/proc", FSType: "proc", Options: []string{"a", "b=c"}, Attr: 7},
			{Kind: MountTree, Target: "/v", Options: []string{}, FD: 4},
		},
		Files:  []File{{"/etc/hosts", []byte("127.0.0.1 localhost\n")}},
		Masked: []string{"/proc/kcore"}, Readonly: []string{"/proc/sys"},
		Rlimits:  []Rlimit{{7, 10, 1 << 40}},
		Bounding: 1<<40 | 1, Effective: 1, UID: 1000, GID: 1<<31 - 1, Groups: []uint32{1, 2},
		Seccomp: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Asking: []byte{8, 7}, Cwd: "/work", Args: []string{"sh", "-c", ""}, Env: []string{"A=b"},
	}
}

func TestCodec(t *testing.T) {
	t.Parallel()
	want := sample()
	got, ok := Decode(want.Encode())
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestCodecRefusesParts(t *testing.T) {
	t.Parallel()
	b := sample().Encode()
	for n := range b {
		if _, ok := Decode(b[:n]); ok {
			t.Errorf("the first %d bytes of %d were taken for a config", n, len(b))
		}
	}
	if _, ok := Decode(append(bytes.Clone(b), 0)); ok {
		t.Error("a byte too many was accepted")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add((&Config{}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := Decode(b)
		if !ok {
			return
		}
		if again := c.Encode(); !bytes.Equal(again, b) {
			t.Errorf("decoded and encoded: %x, from %x", again, b)
		}
	})
}

func TestItoa(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 7: "7", 10: "10", 123456789: "123456789"} {
		if got := itoa(n); got != want {
			t.Errorf("%d gives %q", n, got)
		}
	}
}
