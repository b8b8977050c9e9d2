package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/userns"
)

// kinds are the namespaces of a step (namespaces(7)).
var kinds = []struct {
	name, sysctl string
	flag         uintptr
	need         State // what it means when it cannot be made
}{
	{"user", "max_user_namespaces", unix.CLONE_NEWUSER, Lesser},
	{"mount", "max_mnt_namespaces", unix.CLONE_NEWNS, Missing},
	{"pid", "max_pid_namespaces", unix.CLONE_NEWPID, Lesser},
	{"network", "max_net_namespaces", unix.CLONE_NEWNET, Lesser},
	{"ipc", "max_ipc_namespaces", unix.CLONE_NEWIPC, Lesser},
	{"uts", "max_uts_namespaces", unix.CLONE_NEWUTS, Lesser},
	{"cgroup", "max_cgroup_namespaces", unix.CLONE_NEWCGROUP, Lesser},
}

func (x *examiner) namespaces(context.Context) {
	i := x.o.Namespaces
	for _, k := range kinds {
		id := "namespaces." + k.name
		// Being in one is the proof; nesting a second one may be forbidden.
		if k.flag == unix.CLONE_NEWUSER && i.Worker && i.Rootless {
			x.add(id, k.name, OK, "made for this process", "")
			continue
		}
		flags := k.flag
		if x.o.Refused != nil || i.NoNamespaces {
			flags |= unix.CLONE_NEWUSER // without it, it needs CAP_SYS_ADMIN, which is not here
		}
		if err := x.clone(flags); err != nil {
			x.add(id, k.name, k.need, fmt.Sprintf("cannot be made: %v", err), x.namespaceRemedy(k.sysctl, err))
			continue
		}
		x.add(id, k.name, OK, "can be made", "")
	}
	x.procMount()
}

// procMount says whether a /proc can be mounted for a pid namespace: the
// worker's own is the proof.
func (x *examiner) procMount() {
	i := x.o.Namespaces
	if i.PIDNamespace {
		x.add("namespaces.proc", "/proc", OK, "can be mounted", "")
		return
	}
	masked := ""
	if b, err := os.ReadFile(x.path("/proc/self/mountinfo")); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], "/proc/") && f[4] != "/proc/sys/fs/binfmt_misc" {
				masked = f[4]
				break
			}
		}
	}
	text, remedy := "cannot be mounted", "as root, or in a container with --security-opt unmask=/proc/* (podman) or systempaths=unconfined (docker)"
	if masked != "" {
		text += " (" + masked + " is covered)"
	}
	x.add("namespaces.proc", "/proc", Lesser, text, remedy)
}

// clone makes a process in new namespaces that executes nothing: the empty
// path does not exist. That error is success.
func clone(flags uintptr) error {
	sys := &syscall.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err := syscall.ForkExec("", []string{""}, &syscall.ProcAttr{Sys: sys})
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

func (w *world) namespaceRemedy(sysctl string, err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "as root: sysctl user." + sysctl + "=28633"
	case errors.Is(err, syscall.EINVAL):
		return "a kernel with this kind of namespaces"
	case w.first("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "as root: sysctl kernel.unprivileged_userns_clone=1"
	case w.first("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case w.status("Seccomp") == "2":
		return "run the container around with --security-opt seccomp=unconfined"
	}
	return "run as root, or without the security module or chroot around"
}

func (x *examiner) ids(context.Context) {
	i := x.o.Namespaces
	if i.UID == 0 && !i.Rootless && !i.NoNamespaces {
		x.add("ids.map", "id map", OK, "root: all ids", "")
		return
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if i.UID == 0 {
			break // root of a container maps by itself
		}
		x.idTool(tool)
	}
	if i.UID != 0 {
		uids, gids, err := userns.Ranges(i.UID, i.GID)
		if err != nil {
			x.add("ids.ranges", "id ranges", Lesser, err.Error(), rangeRemedy(i.UID))
		} else {
			x.add("ids.ranges", "id ranges", OK, fmt.Sprintf("uids %s; gids %s", ranges(uids), ranges(gids)), "").
				with("newuidmap", uids).with("newgidmap", gids)
		}
	}
	uidMap, _ := os.ReadFile(x.path("/proc/self/uid_map"))
	gidMap, _ := os.ReadFile(x.path("/proc/self/gid_map"))
	switch {
	case x.o.Refused != nil:
		x.add("ids.map", "id map", Missing, "there is no user namespace", x.namespaceRemedy("max_user_namespaces", x.o.Refused))
	case i.SingleID:
		x.add("ids.map", "id map", Lesser, "one id only", rangeRemedy(i.UID))
	default:
		x.add("ids.map", "id map", OK, "uids "+mapText(uidMap)+"; gids "+mapText(gidMap), "")
	}
	x.report.Host[len(x.report.Host)-1].with("uid_map", mapText(uidMap)).with("gid_map", mapText(gidMap))
}

// idTool looks for a helper that has, or gives itself, the right to map.
func (x *examiner) idTool(tool string) {
	path, err := x.lookPath(tool)
	if err != nil {
		x.add("ids."+tool, tool, Missing, "not installed", "as root: apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)")
		return
	}
	state, text, remedy := OK, path, ""
	fi, err := os.Stat(path)
	caps, _ := unix.Getxattr(path, "security.capability", nil)
	if err == nil && fi.Mode()&os.ModeSetuid == 0 && caps <= 0 {
		state, text, remedy = Lesser, path+" has neither the setuid bit nor a capability", "as root: chmod u+s "+path
	}
	if x.status("NoNewPrivs") == "1" {
		state, text, remedy = Lesser, path+" gets no rights, since no_new_privs is set", "run without no-new-privileges (docker: --security-opt no-new-privileges=false)"
	}
	x.add("ids."+tool, tool, state, text, remedy)
}

func rangeRemedy(uid int) string {
	if uid == 0 {
		return "run the container around with more ids, or with CAP_SETUID and CAP_SETGID"
	}
	name := os.Getenv("USER")
	if name == "" || name == "root" {
		name = strconv.Itoa(uid)
	}
	return "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + name
}

// ranges shows newuidmap's arguments after the first three.
func ranges(args []string) string {
	var out []string
	for ; len(args) >= 3; args = args[3:] {
		out = append(out, args[1]+"+"+args[2])
	}
	return strings.Join(out, " ")
}

// mapText puts an id map on one line: inside:outside+count.
func mapText(b []byte) string {
	var out []string
	for f := strings.Fields(string(b)); len(f) >= 3; f = f[3:] {
		out = append(out, f[0]+":"+f[1]+"+"+f[2])
	}
	return strings.Join(out, " ")
}
