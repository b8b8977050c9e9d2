package isolation

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

func ids(t *testing.T, text ...string) []specs.LinuxIDMapping {
	t.Helper()
	list, err := ParseIDMap("map", text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestParseIDMap(t *testing.T) {
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 2}, {ContainerID: 3, HostID: 4, Size: 5}}
	for _, text := range [][]string{{"0:1:2", "3:4:5"}, {"0:1:2,3:4:5"}, {"0:1:2:3:4:5"}} {
		if got := ids(t, text...); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v", text, got)
		}
	}
	for text, want := range map[string]string{
		"": "want inside:outside:size", "0:1": "want inside", "0:1:x": "want inside", "0:1:-1": "want inside", "0:1:4294967296": "want inside",
		"0:1:0": "at least one", "0:4294967295:1": "below 4294967295", "4294967290:0:10": "below", "0:0:10,9:20:1": "overlaps with 0:0:10",
		"0:0:10,10:5:1": "overlaps", strings.Repeat("0:0:1,", 341): "the kernel takes 340",
	} {
		_, err := ParseIDMap("--flag", []string{text})
		if !errors.Is(err, define.ErrInvalid) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "--flag") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestIDMap(t *testing.T) {
	m := IDMap{UID: ids(t, "0:1000:10", "10:5000:1"), GID: ids(t, "0:0:10")}
	for id, want := range map[uint32]uint32{0: 1000, 9: 1009, 10: 5000} {
		if got, ok := m.UserOutside(id); !ok || got != want {
			t.Errorf("user %d: %d, %v", id, got, ok)
		}
	}
	if _, ok := m.UserOutside(11); ok {
		t.Error("user 11 is not mapped")
	}
	if got, ok := (IDMap{}).GroupOutside(11); !ok || got != 11 {
		t.Error("without a map an id is itself")
	}
	if m.Identity() || !(IDMap{UID: ids(t, "0:0:10"), GID: ids(t, "0:0:5,7:7:1")}).Identity() {
		t.Error("identity")
	}
	if err := (IDMap{UID: ids(t, "1:0:10"), GID: ids(t, "0:0:5")}).Check(); err == nil || !strings.Contains(err.Error(), "has no id 0") {
		t.Errorf("without id 0: %v", err)
	}
	// A user's namespace has two lines, and so must a map across them.
	got := (IDMap{UID: ids(t, "0:0:1000"), GID: ids(t, "5:1:3")}).Within(IDMap{UID: ids(t, "0:0:1", "1:1:65536"), GID: ids(t, "0:0:1", "1:1:65536")})
	if want := (IDMap{UID: ids(t, "0:0:1", "1:1:999"), GID: ids(t, "5:1:3")}); !reflect.DeepEqual(got, want) {
		t.Errorf("within: %v", got)
	}
}
