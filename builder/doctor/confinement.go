package doctor

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (x *examiner) confinement(context.Context) {
	actions := x.first("/proc/sys/kernel/seccomp/actions_avail")
	switch {
	case actions == "" && x.status("Seccomp") == "":
		x.add("confinement.seccomp", "seccomp", Missing, "the kernel has no seccomp filters", "a kernel with CONFIG_SECCOMP_FILTER")
	case actions == "":
		x.add("confinement.seccomp", "seccomp", OK, "filters", "")
	default:
		x.add("confinement.seccomp", "seccomp", OK, "filters: "+actions, "").with("actions", strings.Fields(actions))
	}
	if x.status("Seccomp") == "2" {
		x.fact("confinement.filtered", "filtered", "this process has a seccomp filter itself, of a container or service around")
	}
	if x.status("NoNewPrivs") == "1" {
		x.fact("confinement.no_new_privs", "no_new_privs", "set on this process: setuid programs gain nothing")
	}
	if eff, err := strconv.ParseUint(x.status("CapEff"), 16, 64); err == nil {
		x.fact("confinement.capabilities", "capabilities", "%d effective (%016x)", bits.OnesCount64(eff), eff).with("effective", fmt.Sprintf("%016x", eff))
	}
	modules := x.lsms()
	text := strings.Join(modules, ", ")
	if text == "" {
		text = "none"
	}
	if profile := strings.TrimRight(x.first("/proc/self/attr/current"), "\x00"); profile != "" {
		text += "; this process: " + profile
	}
	x.fact("confinement.lsm", "security modules", "%s", text).with("modules", modules)
}

// lsms are the active Linux security modules. securityfs, which lists them,
// is not mounted in most containers.
func (x *examiner) lsms() []string {
	if list := x.first("/sys/kernel/security/lsm"); list != "" {
		return strings.Split(list, ",")
	}
	var found []string
	if x.first("/sys/module/apparmor/parameters/enabled") == "Y" {
		found = append(found, "apparmor")
	}
	if _, err := os.Stat(x.path("/sys/fs/selinux/enforce")); err == nil {
		found = append(found, "selinux")
	}
	// Linux 6.8 knows them by lsm_list_modules(2); what it answers are numbers
	// that the directories of attr(5) name as well.
	for _, name := range []string{"apparmor", "smack"} {
		if _, err := os.Stat(x.path("/proc/self/attr/" + name)); err == nil && !slices.Contains(found, name) {
			if x.first("/proc/self/attr/"+name+"/current") != "" {
				found = append(found, name)
			}
		}
	}
	return found
}

func (x *examiner) cgroups(context.Context) {
	var fs unix.Statfs_t
	if err := x.statfs(x.path("/sys/fs/cgroup"), &fs); err != nil {
		x.add("cgroups.version", "version", Missing, fmt.Sprintf("/sys/fs/cgroup: %v", err), "mount it, for --memory, --cpu-* and --pids-limit")
		return
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		x.add("cgroups.version", "version", OK, "v2", "").with("version", "v2")
		x.delegation("/sys/fs/cgroup", x.ownGroup(""), true)
		return
	}
	var controllers []string
	unified := false
	entries, err := os.ReadDir(x.path("/sys/fs/cgroup"))
	for _, e := range entries {
		var at unix.Statfs_t
		if x.statfs(x.path(filepath.Join("/sys/fs/cgroup", e.Name())), &at) != nil {
			continue
		}
		switch {
		case at.Type == unix.CGROUP2_SUPER_MAGIC:
			unified = true
		case at.Type == unix.CGROUP_SUPER_MAGIC && e.Type()&os.ModeSymlink == 0:
			controllers = append(controllers, e.Name())
		}
	}
	version := "v1"
	switch {
	case err != nil || len(controllers) == 0 && !unified:
		x.add("cgroups.version", "version", Missing, "no control groups are mounted in /sys/fs/cgroup", "mount them, for --memory, --cpu-* and --pids-limit")
		return
	case unified:
		version = "hybrid"
	}
	x.add("cgroups.version", "version", OK, version+": "+strings.Join(controllers, ", "), "").
		with("version", version).with("controllers", controllers)
	x.delegation("/sys/fs/cgroup/memory", x.ownGroup("memory"), false)
}

// ownGroup is this process's group in the hierarchy of a controller; "" is
// version 2's.
func (x *examiner) ownGroup(controller string) string {
	b, err := os.ReadFile(x.path("/proc/self/cgroup"))
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			return filepath.Clean("/" + f[2])
		}
	}
	return "/"
}

// delegation says whether this process may make groups below its own, or
// (version 2) below one above it.
func (x *examiner) delegation(top, own string, unified bool) {
	const id, name = "cgroups.delegation", "delegation"
	remedy := "as root, or run strata in a delegated group: systemd-run --user --scope -p Delegate=yes strata build ..."
	if !unified {
		remedy = "as root: limits of users need control groups version 2"
	}
	for at := own; ; at = filepath.Dir(at) {
		dir := filepath.Join(top, at)
		if x.access(x.path(dir), unix.W_OK) == nil && x.access(x.path(filepath.Join(dir, "cgroup.procs")), unix.W_OK) == nil {
			f := x.add(id, name, OK, dir+" may be divided", "")
			if unified {
				controllers := strings.Fields(x.first(filepath.Join(dir, "cgroup.controllers")))
				f.Text += ": " + strings.Join(controllers, ", ")
				f.with("controllers", controllers)
			}
			return
		}
		if !unified || at == "/" {
			break
		}
	}
	if unified {
		if err := x.systemd(); err == nil {
			x.add(id, name, OK, "systemd gives builds with limits a scope of their own", "").with("systemd", true)
			return
		}
	}
	x.add(id, name, Lesser, "this user may make no control group: --memory, --cpu-* and --pids-limit are refused", remedy)
}
