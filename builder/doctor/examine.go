package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/binfmt"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
)

// Examine looks at the host. It has no error: what cannot be found out is
// said in the report.
func Examine(ctx context.Context, o Options) *Report {
	return examine(ctx, thisHost(), o)
}

func examine(ctx context.Context, w world, o Options) *Report {
	x := &examiner{world: w, o: o, report: &Report{Version: Version}}
	x.choice, x.choiceErr = store.Choose(o.Store)
	for _, part := range []struct {
		group string
		look  func(context.Context)
	}{
		{"host", x.host}, {"namespaces", x.namespaces}, {"ids", x.ids}, {"confinement", x.confinement},
		{"control groups", x.cgroups}, {"overlay", x.overlays}, {"storage", x.storage}, {"network", x.network},
		{"platforms", x.platforms}, {"configuration", x.configuration}, {"credentials", x.credentials},
		{"programs", x.programs},
	} {
		if ctx.Err() != nil {
			x.report.Reason = "interrupted"
			return x.report
		}
		x.group = part.group
		part.look(ctx)
	}
	x.uses(ctx)
	if dir := os.Getenv("XDG_RUNTIME_DIR"); strings.HasPrefix(filepath.Base(dir), "storage-run-") {
		_ = unix.Rmdir(dir) // made by userns.Enter, as it is for builds; one in use is not empty
	}
	return x.report
}

// oldest is the kernel that embedded isolation needs (mount_setattr).
var oldest = [2]int{5, 12}

func (x *examiner) host(context.Context) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		x.add("host.kernel", "kernel", Missing, fmt.Sprintf("uname: %v", err), "a seccomp profile around that allows uname(2)")
	} else {
		release := unix.ByteSliceToString(uts.Release[:])
		var major, minor int
		_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
		state, remedy := OK, ""
		if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
			state, remedy = Lesser, "Linux 5.12 or newer: steps get namespaces of their own"
		}
		x.add("host.kernel", "kernel", state, "Linux "+release, remedy).with("release", release)
	}
	x.fact("host.machine", "machine", "%s, %d CPUs", define.FormatPlatform(define.HostPlatform()), runtime.NumCPU()).
		with("platform", define.FormatPlatform(define.HostPlatform())).with("cpus", runtime.NumCPU())
	i := x.o.Namespaces
	who := fmt.Sprintf("uid %d, gid %d", i.UID, i.GID)
	switch {
	case i.NoNamespaces:
		who += ", without CAP_SYS_ADMIN"
	case i.Rootless:
		who += ", rootless"
	}
	x.fact("host.user", "user", "%s", who).with("uid", i.UID).with("gid", i.GID).with("rootless", i.Rootless)
	if kind := container(); kind != "" {
		x.fact("host.container", "container", "inside a container (%s)", kind)
	}
	home := os.Getenv("HOME")
	switch err := x.access(home, unix.W_OK|unix.X_OK); {
	case err == nil:
		x.fact("host.home", "home", "%s", home)
	default:
		x.add("host.home", "home", Lesser, fmt.Sprintf("%s cannot be written: %v", home, err), "set HOME to a directory of yours")
	}
}

// container names what says that a container is around us; "" is nothing.
func container() string {
	for _, f := range []string{"/run/.containerenv", "/.dockerenv"} {
		if _, err := os.Lstat(f); err == nil {
			return f
		}
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "Kubernetes"
	}
	return ""
}

// emulated are the platforms that are asked about.
var emulated = []string{"linux/amd64", "linux/386", "linux/arm64", "linux/arm/v7", "linux/ppc64le", "linux/riscv64", "linux/s390x"}

func (x *examiner) platforms(context.Context) {
	tmp := x.tempDir()
	if tmp != "" {
		defer os.Remove(tmp)
	}
	var native, found, missing []string
	for _, name := range emulated {
		p, err := define.ParsePlatform(name)
		if err != nil {
			continue
		}
		h, err := binfmt.Find(p, tmp)
		switch {
		case err != nil:
			missing = append(missing, name)
		case h == nil:
			native = append(native, name)
		case h.Interpreter != "":
			found = append(found, name+" by "+h.Interpreter)
		default:
			found = append(found, name)
		}
	}
	x.add("platforms.native", "native", OK, strings.Join(native, ", "), "").with("platforms", native)
	switch {
	case len(found) == 0:
		x.add("platforms.emulated", "emulated", Missing, "RUN steps of other architectures cannot be executed",
			"apt-get install qemu-user-static (or qemu-user-binfmt), for --platform with RUN")
	default:
		x.add("platforms.emulated", "emulated", OK, strings.Join(found, ", "), "")
	}
	x.report.Host[len(x.report.Host)-1].with("platforms", found).with("missing", missing)
}

// tempDir makes a directory of mode 0700 for what is tried, where it can; ""
// is nowhere. The caller removes it.
func (x *examiner) tempDir() string {
	dir, err := os.MkdirTemp("", "strata-doctor-")
	if err != nil {
		return ""
	}
	return dir
}

// existing is the nearest directory at or above path that is there.
func existing(path string) string {
	for {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			return path
		}
		up := filepath.Dir(path)
		if up == path {
			return path
		}
		path = up
	}
}
