package isolation

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/define"
)

func newSpec(t *testing.T, change func(*Options)) (*Spec, error) {
	t.Helper()
	o := Options{Args: []string{"true"}}
	if change != nil {
		change(&o)
	}
	return NewSpec(o)
}

func TestNewSpecRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Options)
		want   string // in the error
	}{
		"no command":       {func(o *Options) { o.Args = nil }, "command"},
		"zero in argument": {func(o *Options) { o.Args = []string{"a\x00b"} }, "zero byte"},
		"zero in env":      {func(o *Options) { o.Env = []string{"A=\x00"} }, `"A"`},
		"relative cwd":     {func(o *Options) { o.Cwd = "a/b" }, "a/b"},
		"network":          {func(o *Options) { o.Network = "bridge" }, "bridge"},
		"hostname":         {func(o *Options) { o.Hostname = "a b\n127.0.0.1 c" }, "hostname"},
		"long hostname":    {func(o *Options) { o.Hostname = strings.Repeat("a", 65) }, "64"},
		"capability":       {func(o *Options) { o.CapAdd = []string{"NET_ADMN"} }, "CAP_NET_ADMIN"},
		"drop capability":  {func(o *Options) { o.CapDrop = []string{"SETUIDS"} }, "CAP_SETUID"},
		"both ways":        {func(o *Options) { o.CapAdd, o.CapDrop = []string{"CHOWN"}, []string{"CAP_CHOWN"} }, "both"},
		"all both ways":    {func(o *Options) { o.CapAdd, o.CapDrop = []string{"ALL"}, []string{"all"} }, "both"},
		"ulimit form":      {func(o *Options) { o.Ulimits = []string{"nofile"} }, "soft[:hard]"},
		"ulimit name":      {func(o *Options) { o.Ulimits = []string{"nofiles=1"} }, "nofile"},
		"ulimit value":     {func(o *Options) { o.Ulimits = []string{"nofile=many"} }, "unlimited"},
		"ulimit order":     {func(o *Options) { o.Ulimits = []string{"nofile=2:1"} }, "above"},
		"shm":              {func(o *Options) { o.ShmSize = -1 }, "shm"},
		"host":             {func(o *Options) { o.Hosts = []string{"a"} }, "name:ip"},
		"host address":     {func(o *Options) { o.Hosts = []string{"a:b"} }, "name:ip"},
		"host name":        {func(o *Options) { o.Hosts = []string{"a b:1.2.3.4"} }, "host name"},
		"host gateway":     {func(o *Options) { o.Hosts, o.Network = []string{"a:host-gateway"}, NetworkNone }, "no gateway"},
		"host lines":       {func(o *Options) { o.Hosts = []string{"a\nb:1.2.3.4"} }, "host name"},
		"dns":              {func(o *Options) { o.DNS = []string{"example"} }, "IP address"},
		"dns search":       {func(o *Options) { o.DNSSearch = []string{"a b"} }, "search"},
		"dns option":       {func(o *Options) { o.DNSOptions = []string{"a\nnameserver 1.1.1.1"} }, "option"},
		"volume relative":  {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "a"}} }, "absolute"},
		"volume on root":   {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a/.."}} }, "root"},
		"volume on proc":   {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/x/../proc/self/attr"}} }, "/proc"},
		"volume on dev":    {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/dev/"}} }, "/dev"},
		"volume source":    {func(o *Options) { o.Volumes = []Volume{{Source: "x", Target: "/a"}} }, "absolute"},
		"volume missing":   {func(o *Options) { o.Volumes = []Volume{{Source: "/no/such/source", Target: "/a"}} }, "/no/such/source"},
		"volume twice":     {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a"}, {Source: "/", Target: "/a/"}} }, "two mounts"},
		"volume option":    {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a", Options: []string{"foo"}}} }, "foo"},
		"volume shared":    {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a", Options: []string{"unbindable"}}} }, "private"},
		"volume U":         {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a", Options: []string{"U"}}} }, "no option of a mount"},
		"volume O":         {func(o *Options) { o.Volumes = []Volume{{Source: "/", Target: "/a", Options: []string{"O"}}} }, "no option of a mount"},
		"single id":        {func(o *Options) { o.Rootless, o.SingleID, o.UID = true, true, 1000 }, "subuid"},
	} {
		_, err := newSpec(t, c.change)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
		if name != "volume missing" && !errors.Is(err, define.ErrInvalid) && !errors.Is(err, define.ErrUnsupported) {
			t.Errorf("%s: %v wraps no kind", name, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	if len(grantable()) < len(defaultCapabilities) {
		t.Skip("this process's bounding set is too small")
	}
	for name, c := range map[string]struct {
		add, drop []string
		want      string
	}{
		"default": {nil, nil, "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"},
		"drop":    {nil, []string{"chown", "CAP_KILL", "NET_RAW"}, "DAC_OVERRIDE FOWNER FSETID NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"},
		"none":    {nil, []string{"ALL"}, ""},
		"only":    {[]string{"MKNOD", "mknod"}, []string{"all"}, "MKNOD"},
		"add":     {[]string{"NET_RAW"}, []string{"FOWNER"}, "CHOWN DAC_OVERRIDE FSETID KILL NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"},
	} {
		s, err := newSpec(t, func(o *Options) { o.CapAdd, o.CapDrop = c.add, c.drop })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := s.Process.Capabilities
		got := strings.ReplaceAll(strings.Join(p.Bounding, " "), "CAP_", "")
		if got != c.want || !slices.Equal(p.Effective, p.Bounding) || !slices.Equal(p.Permitted, p.Bounding) {
			t.Errorf("%s: %s, want %s (%+v)", name, got, c.want, p)
		}
		if len(p.Inheritable)+len(p.Ambient) > 0 {
			t.Errorf("%s: inheritable or ambient: %+v", name, p)
		}
	}
	s, err := newSpec(t, func(o *Options) { o.UID = 1000 })
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Process.Capabilities; len(p.Effective)+len(p.Permitted)+len(p.Ambient)+len(p.Inheritable) > 0 || len(p.Bounding) == 0 {
		t.Errorf("a user's: %+v", p)
	}
	all, err := newSpec(t, func(o *Options) { o.CapAdd = []string{"ALL"} })
	if err != nil || !slices.Contains(all.Process.Capabilities.Bounding, "CAP_CHOWN") || len(all.Process.Capabilities.Bounding) != len(grantable()) {
		t.Errorf("ALL: %v %v", all, err)
	}
}

func TestRlimits(t *testing.T) {
	t.Parallel()
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &have); err != nil {
		t.Fatal(err)
	}
	s, err := newSpec(t, func(o *Options) {
		o.Rootless = true // clamps whatever we are
		o.Ulimits = []string{"core=0", "nofile=5:10", "NOFILE=6:9", "cpu=-1", "fsize=unlimited:unlimited"}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]uint64{"RLIMIT_CORE": {0, 0}, "RLIMIT_NOFILE": {6, 9}}
	if len(s.Process.Rlimits) != 4 {
		t.Errorf("%v", s.Process.Rlimits)
	}
	for _, l := range s.Process.Rlimits {
		if w, ok := want[l.Type]; ok && (l.Soft != w[0] || l.Hard != w[1]) {
			t.Errorf("%+v, want %v", l, w)
		}
		n, ok := RlimitNumber(l.Type)
		if !ok {
			t.Errorf("%s has no number", l.Type)
		}
		var most unix.Rlimit
		if err := unix.Prlimit(0, n, nil, &most); err != nil || l.Hard > most.Max {
			t.Errorf("%+v is above %d", l, most.Max)
		}
	}
}

func TestNetworkFiles(t *testing.T) {
	t.Parallel()
	const host = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\n; c\nsearch a b\noptions edns0 trust-ad\nnameserver junk\n"
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"host":    {Options{Network: NetworkHost}, "nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nsearch a b\noptions edns0 trust-ad\n"},
		"none":    {Options{Network: NetworkNone}, "nameserver 10.0.0.1\nsearch a b\noptions edns0 trust-ad\n"},
		"servers": {Options{DNS: []string{"192.0.2.1", "2001:db8::1"}}, "search a b\noptions edns0 trust-ad\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"},
		"no search": {Options{Network: NetworkHost, DNSSearch: []string{"."}, DNSOptions: []string{"ndots:3"}},
			"nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:3\n"},
	} {
		got, err := resolvConf(host, c.o)
		if err != nil || got != c.want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, c.want)
		}
	}
	hosts, err := hostsFile(Options{Hostname: "h", Hosts: []string{"db:10.0.0.7", "a;b=10.0.0.8", "six:::1", "seven:[2001:db8::7]"}})
	want := "10.0.0.7\tdb\n10.0.0.8\ta b\n::1\tsix\n2001:db8::7\tseven\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\th\n"
	if err != nil || hosts != want {
		t.Errorf("hosts %q (%v)", hosts, err)
	}
	for network, want := range map[NetworkMode]string{"": "127.0.0.1\tme\n", NetworkHost: "127.0.0.1\tme\n", NetworkJoined: "10.1.1.1\tme\n"} {
		o := Options{Hosts: []string{"me:host-gateway"}, Network: network}
		if network == NetworkJoined {
			o.HostGateway = netip.MustParseAddr("10.1.1.1")
		}
		if hosts, err := hostsFile(o); err != nil || !strings.HasPrefix(hosts, want) {
			t.Errorf("host-gateway on network %q: %q (%v), want %q", network, hosts, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("CANARY_TOKEN", "leaked")
	s, err := newSpec(t, func(o *Options) { o.Env = []string{"CANARY_TOKEN", "*", "CANARY*", "=x", "", "A=", "B=c=d"} })
	if err != nil || !slices.Equal(s.Process.Env, []string{"A=", "B=c=d"}) {
		t.Errorf("%q (%v)", s.Process.Env, err)
	}
}

// TestMountsAndTargets looks at the order of mounts, and at what must exist
// in the root for them.
func TestMountsAndTargets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := newSpec(t, func(o *Options) {
		o.Volumes = []Volume{
			{Source: dir, Target: "/a/b/c"}, {Source: dir, Target: "/a", ReadOnly: true}, {Source: file, Target: "/etc/hosts"},
			{Source: dir, Target: "/dev/shm"}, {Source: dir, Target: "/z", Options: []string{"dev", "noexec"}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	var mounts, targets []string
	for _, m := range s.Mounts {
		mounts = append(mounts, m.Destination)
	}
	for _, x := range s.Targets() {
		text := x.Path
		if x.Dir {
			text += "/"
		}
		if x.Cover {
			text += "@"
		}
		targets = append(targets, text)
	}
	if got, want := strings.Join(mounts, " "), "/proc /dev /dev/pts /dev/mqueue /sys /sys/fs/cgroup /a /z /etc/hosts /dev/shm /a/b/c"; got != want {
		t.Errorf("mounts %s\nwant   %s", got, want)
	}
	if got, want := strings.Join(targets, " "), "/a/ /dev/ /proc/ /sys/ /z/ /etc/hostname@ /etc/hosts /etc/resolv.conf@"; got != want {
		t.Errorf("targets %s\nwant    %s", got, want)
	}
	if _, ok := s.Files["/etc/hosts"]; ok {
		t.Error("the user's /etc/hosts is covered")
	}
	for _, m := range s.Mounts {
		ro := slices.Contains(m.Options, "ro")
		if m.Destination == "/a" && !ro || m.Destination == "/z" && (ro || slices.Contains(m.Options, "nodev") || !slices.Contains(m.Options, "noexec")) {
			t.Errorf("%+v", m)
		}
	}
	below, err := newSpec(t, func(o *Options) { o.Volumes = []Volume{{Source: dir, Target: "/etc"}} })
	if err != nil || len(below.Files) != 0 {
		t.Errorf("files below the user's /etc: %v (%v)", below.Files, err)
	}
}

func TestRootlessMounts(t *testing.T) {
	t.Parallel()
	find := func(s *Spec, dest string) (m specs.Mount) {
		for _, m = range s.Mounts {
			if m.Destination == dest {
				return m
			}
		}
		t.Fatalf("no mount %s", dest)
		return m
	}
	s, err := newSpec(t, func(o *Options) { o.Rootless, o.SingleID, o.Groups = true, true, []uint32{0} })
	if err != nil {
		t.Fatal(err)
	}
	if m := find(s, "/sys"); m.Type != "bind" || !slices.Contains(m.Options, "rro") {
		t.Errorf("host's network: %+v", m)
	}
	if m := find(s, "/dev/pts"); slices.Contains(m.Options, "gid=5") {
		t.Errorf("single id: %+v", m)
	}
	if len(s.Process.User.AdditionalGids) > 0 {
		t.Errorf("single id: groups %v", s.Process.User.AdditionalGids)
	}
	s, err = newSpec(t, func(o *Options) { o.Rootless, o.Network = true, NetworkNone })
	if err != nil {
		t.Fatal(err)
	}
	if m := find(s, "/sys"); m.Type != "sysfs" || !s.HasNamespace(specs.NetworkNamespace) {
		t.Errorf("own network: %+v", m)
	}
}

func FuzzHostEntry(f *testing.F) {
	for _, s := range []string{"a:1.2.3.4", "a;b=::1", "a:[::1]", "a:host-gateway", "a:[", "=", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, _, err := hostEntry(s, netip.Addr{})
		if err == nil && strings.ContainsAny(strings.Join(names, ""), " \t\n\r#\x00") {
			t.Errorf("%q gives %q", s, names)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 127.0.0.1\nsearch a\n")
	f.Fuzz(func(t *testing.T, s string) {
		out, err := resolvConf(s, Options{Network: NetworkNone})
		if err != nil || strings.Contains(out, "nameserver 127.") || strings.Contains(out, "nameserver ::1\n") {
			t.Errorf("%q gives %q (%v)", s, out, err)
		}
	})
}

func BenchmarkNewSpec(b *testing.B) {
	for b.Loop() {
		if _, err := NewSpec(Options{Args: []string{"/bin/sh", "-c", "true"}, Env: []string{"PATH=/bin"}}); err != nil {
			b.Fatal(err)
		}
	}
}
