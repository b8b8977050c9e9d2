package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/builder/userns"
)

// madeUp is a host where all is as good as it gets, of control groups of
// version 2, on which cases spoil one thing each.
func madeUp(t *testing.T) (world, map[string]string) {
	t.Helper()
	w := thisHost()
	w.root = t.TempDir()
	w.clone = func(uintptr) error { return nil }
	w.tryOverlay = func(string, bool) error { return nil }
	w.lowerPlus = func(string) error { return nil }
	w.tryTun = func() error { return nil }
	w.tryNetwork = func(context.Context, bool) (string, error) { return "bridge", nil }
	w.systemd = func() error { return errors.New("nobody listens") }
	w.lookPath = func(name string) (string, error) { return "/usr/bin/" + name, nil }
	w.statfs = func(path string, st *unix.Statfs_t) error {
		*st = unix.Statfs_t{Type: unix.XFS_SUPER_MAGIC, Bsize: 4096, Bavail: 1 << 30, Files: 1 << 30, Ffree: 1 << 30}
		if strings.HasSuffix(path, "/sys/fs/cgroup") {
			st.Type = unix.CGROUP2_SUPER_MAGIC
		}
		return nil
	}
	w.access = func(string, uint32) error { return nil }
	return w, map[string]string{
		"proc/self/status":                            "Name:\tstrata\nSeccomp:\t0\nNoNewPrivs:\t0\nCapEff:\t000001ffffffffff\n",
		"proc/self/cgroup":                            "0::/user.slice\n",
		"proc/self/mountinfo":                         "22 1 0:20 / /proc rw - proc proc rw\n",
		"proc/self/uid_map":                           "0 0 4294967295\n",
		"proc/sys/kernel/seccomp/actions_avail":       "kill errno allow\n",
		"proc/filesystems":                            "\text4\nnodev\toverlay\n",
		"proc/sys/net/ipv6/conf/all/disable_ipv6":     "0\n",
		"etc/resolv.conf":                             "nameserver 192.0.2.1\n",
		"sys/fs/cgroup/user.slice/cgroup.controllers": "cpuset cpu memory pids\n",
		"sys/fs/cgroup/user.slice/cgroup.procs":       "",
		"sys/kernel/security/lsm":                     "capability,apparmor",
	}
}

// fasterHere is what a user of vfs is recommended, which is tried.
func fasterHere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	c, err := store.Choose(store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "vfs"})
	if err != nil {
		t.Fatal(err)
	}
	return c.Faster
}

// TestHosts: each lesser choice is seen, and what enables the better one is
// said.
func TestHosts(t *testing.T) {
	deny := func(err error) func(uintptr) error { return func(uintptr) error { return err } }
	for _, c := range []struct {
		name   string
		spoil  func(w *world, files map[string]string, o *Options)
		id     string
		state  State
		text   string
		remedy string
	}{
		{"all is well", nil, "cgroups.delegation", OK, "may be divided: cpuset, cpu, memory, pids", ""},
		{"namespaces are used up", func(w *world, _ map[string]string, _ *Options) { w.clone = deny(unix.ENOSPC) },
			"namespaces.user", Lesser, "no space left", "as root: sysctl user.max_user_namespaces=28633"},
		{"no pid namespaces in the kernel", func(w *world, _ map[string]string, _ *Options) { w.clone = deny(unix.EINVAL) },
			"namespaces.pid", Lesser, "invalid argument", "a kernel with this kind of namespaces"},
		{"Debian's switch", func(w *world, f map[string]string, _ *Options) {
			w.clone = deny(unix.EPERM)
			f["proc/sys/kernel/unprivileged_userns_clone"] = "0\n"
		}, "namespaces.user", Lesser, "not permitted", "as root: sysctl kernel.unprivileged_userns_clone=1"},
		{"Ubuntu's switch", func(w *world, f map[string]string, _ *Options) {
			w.clone = deny(unix.EACCES)
			f["proc/sys/kernel/apparmor_restrict_unprivileged_userns"] = "1\n"
		}, "namespaces.mount", Missing, "permission denied", "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
		{"in a container with a filter", func(w *world, f map[string]string, _ *Options) {
			w.clone = deny(unix.EPERM)
			f["proc/self/status"] = "Seccomp:\t2\n"
		}, "namespaces.network", Lesser, "not permitted", "--security-opt seccomp=unconfined"},
		{"masked /proc", func(_ *world, f map[string]string, _ *Options) {
			f["proc/self/mountinfo"] += "23 22 0:21 / /proc/keys rw - tmpfs tmpfs rw\n"
		}, "namespaces.proc", Lesser, "/proc/keys is covered", "unmask=/proc/*"},
		{"no newuidmap", func(w *world, _ map[string]string, o *Options) {
			o.Namespaces = userns.Info{UID: 54001, GID: 54001, Rootless: true, SingleID: true, Worker: true}
			w.lookPath = func(name string) (string, error) { return "", exec.ErrNotFound }
		}, "ids.newuidmap", Missing, "not installed", "apt-get install uidmap"},
		{"no range of ids", func(_ *world, _ map[string]string, o *Options) {
			o.Namespaces = userns.Info{UID: 54001, GID: 54001, Rootless: true, SingleID: true, Worker: true}
		}, "ids.map", Lesser, "one id only", "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535"},
		{"no_new_privs", func(_ *world, f map[string]string, o *Options) {
			o.Namespaces = userns.Info{UID: 54001, GID: 54001, Rootless: true, SingleID: true, Worker: true}
			f["proc/self/status"] = "NoNewPrivs:\t1\n"
		}, "ids.newgidmap", Lesser, "no_new_privs is set", "run without no-new-privileges"},
		{"no seccomp", func(_ *world, f map[string]string, _ *Options) {
			delete(f, "proc/sys/kernel/seccomp/actions_avail")
			f["proc/self/status"] = "Name:\tx\n"
		}, "confinement.seccomp", Missing, "no seccomp filters", "CONFIG_SECCOMP_FILTER"},
		{"no control groups", func(w *world, _ map[string]string, _ *Options) {
			good := w.statfs
			w.statfs = func(path string, st *unix.Statfs_t) error {
				if strings.HasSuffix(path, "/sys/fs/cgroup") {
					return unix.ENOENT
				}
				return good(path, st)
			}
		}, "cgroups.version", Missing, "no such file", "mount it"},
		{"control groups that are not delegated", func(w *world, _ map[string]string, _ *Options) {
			w.access = func(path string, _ uint32) error {
				if strings.Contains(path, "cgroup") {
					return unix.EACCES
				}
				return nil
			}
		}, "cgroups.delegation", Lesser, "may make no control group", "systemd-run --user --scope -p Delegate=yes"},
		{"systemd delegates on demand", func(w *world, _ map[string]string, _ *Options) {
			w.access = func(path string, _ uint32) error {
				if strings.Contains(path, "cgroup") {
					return unix.EACCES
				}
				return nil
			}
			w.systemd = func() error { return nil }
		}, "cgroups.delegation", OK, "systemd gives builds with limits a scope", ""},
		{"no overlay", func(w *world, _ map[string]string, _ *Options) {
			w.tryOverlay = func(string, bool) error { return unix.ENODEV }
		}, "overlay.mount", Lesser, "no such device", "--storage-driver vfs copies files instead"},
		{"overlay on NFS", func(w *world, _ map[string]string, _ *Options) {
			w.tryOverlay = func(string, bool) error { return unix.EINVAL }
			w.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Type: unix.NFS_SUPER_MAGIC, Bsize: 1, Bavail: 1 << 40}
				return nil
			}
		}, "overlay.mount", Lesser, "invalid argument", "--root on a local file system"},
		{"no user attributes", func(w *world, _ map[string]string, _ *Options) {
			w.tryOverlay = func(_ string, userxattr bool) error {
				if userxattr {
					return unix.EINVAL
				}
				return nil
			}
		}, "overlay.userxattr", Lesser, "invalid argument", "Linux 5.11"},
		{"an old overlay", func(w *world, _ map[string]string, _ *Options) {
			w.lowerPlus = func(string) error { return unix.EOPNOTSUPP }
		}, "overlay.lowerdir+", Lesser, "not known", "Linux 6.8"},
		{"a full disk", func(w *world, _ map[string]string, _ *Options) {
			w.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Bavail: 10}
				return nil
			}
		}, "storage.space", Lesser, "free", "strata prune"},
		{"no inodes", func(w *world, _ map[string]string, _ *Options) {
			w.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Bavail: 1 << 30, Files: 100, Ffree: 3}
				return nil
			}
		}, "storage.space", Lesser, "3 inodes free", "more inodes"},
		{"a read-only disk", func(w *world, _ map[string]string, _ *Options) {
			w.statfs = func(_ string, st *unix.Statfs_t) error {
				*st = unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Bavail: 1 << 30, Flags: unix.ST_RDONLY}
				return nil
			}
		}, "storage.readonly", Missing, "read-only file system", "mount -o remount,rw"},
		{"vfs is asked for", func(_ *world, _ map[string]string, o *Options) { o.Store.Driver = "vfs" },
			"storage.driver", Lesser, "vfs", fasterHere(t)},
		{"no private network", func(w *world, _ map[string]string, _ *Options) {
			w.tryNetwork = func(context.Context, bool) (string, error) { return "", unix.EPERM }
		}, "use.network", Lesser, "the host's", "--network host"},
		{"no tun", func(w *world, _ map[string]string, _ *Options) { w.tryTun = func() error { return unix.ENOENT } },
			"network.tun", Neutral, "not there", "modprobe tun"},
		{"tun is root's", func(w *world, _ map[string]string, _ *Options) { w.tryTun = func() error { return unix.EACCES } },
			"network.tun", Neutral, "cannot be used", "chmod 666 /dev/net/tun"},
		{"no resolver", func(_ *world, f map[string]string, _ *Options) { f["etc/resolv.conf"] = "# empty\n" },
			"network.resolver", Lesser, "names no server", "nameserver"},
		{"no git", func(w *world, _ map[string]string, _ *Options) {
			w.lookPath = func(string) (string, error) { return "", exec.ErrNotFound }
		}, "programs.git", Lesser, "not installed", "apt-get install git"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, files := madeUp(t)
			dir := t.TempDir()
			o := Options{Store: store.Options{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Driver: "overlay"},
				Namespaces: userns.Info{PIDNamespace: c.name != "masked /proc"}}
			if c.spoil != nil {
				c.spoil(&w, files, &o)
			}
			for name, text := range files {
				file := filepath.Join(w.root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r := examine(context.Background(), w, o)
			f := find(t, r, c.id)
			if f.State != c.state || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Remedy, c.remedy) {
				t.Errorf("%+v, want %s with %q and the remedy %q", f, c.state, c.text, c.remedy)
			}
			for _, f := range append(append([]Finding{}, r.Uses...), r.Host...) {
				if (f.State == Lesser || f.State == Missing) && f.Remedy == "" {
					t.Errorf("%s is %s without a remedy: %s", f.ID, f.State, f.Text)
				}
			}
		})
	}
}
