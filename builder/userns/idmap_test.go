package userns

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestParseSubIDs(t *testing.T) {
	t.Parallel()
	const file = "# comment\nann:100000:65536\nbob:165536:65536\n1000:300000:10\nann:400000:5\nann:x:1\nann:1\nann:4294967290:100\n:1:1\nann:7:0\n"
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"ann", "1000"}, "[{100000 65536} {300000 10} {400000 5}]"},
		{[]string{"bob", "1001"}, "[{165536 65536}]"},
		{[]string{"eve", "1002"}, "[]"},
		{[]string{"", "1002"}, "[]"},
	} {
		got, err := parseSubIDs(strings.NewReader(file), c.names...)
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%v: %v (%v), want %s", c.names, got, err, c.want)
		}
	}
}

func TestMapArgs(t *testing.T) {
	t.Parallel()
	got := strings.Join(mapArgs(1000, []idRange{{100000, 65536}, {300000, 10}}), " ")
	if want := "0 1000 1 1 100000 65536 65537 300000 10"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSPC: "max_user_namespaces", syscall.EPERM: "", syscall.EUSERS: "deeply", syscall.ENOENT: "",
	} {
		err := fmt.Errorf("start: %w", errno)
		if got := hint(err); !strings.Contains(got, want) || errno == syscall.ENOENT && got != "" {
			t.Errorf("%v: %q", errno, got)
		}
		if text := explain(err).Error(); strings.Contains(text, "\n") || !strings.Contains(text, errno.Error()) {
			t.Errorf("%v: %q", errno, text)
		}
	}
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("ann:100000:65536\n", "ann")
	f.Fuzz(func(t *testing.T, text, name string) {
		ranges, _ := parseSubIDs(strings.NewReader(text), name)
		for _, r := range ranges {
			if r.count == 0 || uint64(r.start)+uint64(r.count) > 1<<32-1 {
				t.Errorf("range %v", r)
			}
		}
	})
}
