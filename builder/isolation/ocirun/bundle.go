package ocirun

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/define"
)

// bundleVersion is what is written as ociVersion. Nothing newer than 1.0.2 is
// used, and older runtimes refuse versions that they do not know.
const bundleVersion = "1.0.2"

// work is a step's private directory: the bundle (config.json, rootfs), the
// sources of bind mounts (files, volumes), the runtime's state, log and pid
// file. Below rootfs and volumes, mounts exist in the step's thread only.
type work struct {
	dir   string
	stubs []string // mount points of volumes
}

func newWork(temp string) (*work, error) {
	dir, err := os.MkdirTemp(temp, "strata-oci-") // 0700
	if err != nil {
		return nil, fmt.Errorf("step's private directory: %w; set TMPDIR to a writable directory", err)
	}
	w := &work{dir: dir}
	for _, d := range []string{"rootfs", "state", "files", "volumes"} {
		if err := os.Mkdir(w.path(d), 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("step's private directory: %w", err), w.remove())
		}
	}
	return w, nil
}

func (w *work) path(name ...string) string {
	return filepath.Join(append([]string{w.dir}, name...)...)
}

// id is the container's: unique on the machine, in the runtimes' alphabet.
func (w *work) id() string { return filepath.Base(w.dir) }

// remove deletes the directory. Below rootfs and volumes, where the step's
// thread had mounts, only what is known is deleted: should a mount be left
// there, its content must not be.
func (w *work) remove() error {
	var err error
	for _, stub := range append(w.stubs, "volumes", "rootfs") {
		if e := os.Remove(w.path(stub)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	entries, e := os.ReadDir(w.dir)
	err = errors.Join(err, e)
	for _, entry := range entries {
		if name := entry.Name(); name != "rootfs" && name != "volumes" {
			err = errors.Join(err, os.RemoveAll(w.path(name)))
		}
	}
	if err = errors.Join(err, os.Remove(w.dir)); err != nil {
		return fmt.Errorf("step's private directory is left: %w", oneLine([]error{err}))
	}
	return nil
}

// stub makes a mount point below volumes.
func (w *work) stub(n int, dir bool) (string, error) {
	name := "volumes/" + strconv.Itoa(n)
	p := w.path(name)
	w.stubs = append(w.stubs, name)
	if dir {
		return p, os.Mkdir(p, 0o700)
	}
	return p, os.WriteFile(p, nil, 0o600)
}

// config returns the bundle's document for spec, whose own fields are not
// changed. Bind mounts of the spec's are replaced by sources, by destination.
func (r *oci) config(spec *isolation.Spec, sources map[string]source, id string) *specs.Spec {
	c := spec.Spec
	linux := *c.Linux
	linux.Namespaces = namespaceList(spec)
	if r.deniesDevices(&c) {
		linux.Resources = &specs.LinuxResources{Devices: deviceList(spec)}
	}
	c.Linux = &linux
	limit(&linux, spec.Limits, id)
	if spec.KeepGroups {
		c.Annotations = maps.Clone(c.Annotations)
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations["run.oci.keep_original_groups"] = "1" // crun's
	}
	c.Version = bundleVersion
	readOnly := c.Root != nil && c.Root.Readonly
	c.Root = &specs.Root{Path: "rootfs", Readonly: readOnly}
	p := *c.Process
	p.Rlimits = clampRlimits(p.Rlimits)
	c.Process = &p
	c.Mounts = slices.Clone(c.Mounts)
	for i, m := range c.Mounts {
		if source, ok := sources[m.Destination]; ok {
			c.Mounts[i].Source, c.Mounts[i].Options = source.path, source.options
		}
	}
	return &c
}

// writeConfig writes the bundle's document.
func (w *work) writeConfig(c *specs.Spec) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if err := os.WriteFile(w.path("config.json"), b, 0o600); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// clampRlimits lowers limits above the hard limits of this process, where it
// may not raise them. NewSpec has clamped already, though for the process
// that called it.
func clampRlimits(in []specs.POSIXRlimit) []specs.POSIXRlimit {
	out := slices.Clone(in)
	for i, l := range out {
		n, ok := isolation.RlimitNumber(l.Type)
		var have unix.Rlimit
		if !ok || unix.Prlimit(0, n, nil, &have) != nil || l.Hard <= have.Max {
			continue
		}
		if inUserNamespace() || !mayRaise() {
			out[i].Hard, out[i].Soft = have.Max, min(l.Soft, have.Max)
		}
	}
	return out
}

// mayRaise reports CAP_SYS_RESOURCE.
func mayRaise() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// checkCwd refuses a working directory that the runtime would make (runc
// does) or that lies in /proc, where names lead out of the root
// (CVE-2024-21626).
func checkCwd(s *isolation.Step) error {
	cwd := filepath.Clean("/" + s.Spec.Process.Cwd)
	if cwd == "/proc" || strings.HasPrefix(cwd, "/proc/") {
		return fmt.Errorf("working directory %s: cannot lie in /proc: %w", cwd, define.ErrInvalid)
	}
	volumes := false
	for _, m := range s.Spec.Mounts {
		if cwd == m.Destination || strings.HasPrefix(cwd, m.Destination+"/") {
			return nil
		}
		volumes = volumes || m.Type == "bind" && m.Destination != "/sys"
	}
	fd, err := unix.Openat2(int(s.Root.Fd()), cwd, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		return unix.Close(fd)
	case errors.Is(err, unix.ENOSYS), volumes && errors.Is(err, unix.ENOENT):
		return nil // it may lie on a volume, behind a link
	}
	return fmt.Errorf("working directory %s: %w", cwd, err)
}

// checkMountPoints refuses a root whose /proc, /sys or /dev is a symbolic
// link: runc 1.1 and crun 1.8 then write to where it leads on the host.
func checkMountPoints(s *isolation.Step) error {
	for _, name := range [...]string{"proc", "sys", "dev"} {
		var st unix.Stat_t
		err := unix.Fstatat(int(s.Root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("step's root: /%s: %w", name, err)
		}
		return fmt.Errorf("step's root: /%s is not a directory, and OCI runtimes follow it out of the root; "+
			"use the embedded driver: %w", name, define.ErrEscape)
	}
	return nil
}

// The kernel's limits for execve(2): MAX_ARG_STRLEN for one string, and three
// quarters of the default stack for all of them (fs/exec.c).
const (
	maxString  = 128 << 10
	maxStrings = 6 << 20
)

// checkSize refuses what cannot be executed. runc notices only when the
// container is otherwise started, and crun leaves out what is repeated.
func checkSize(s *isolation.Step) error {
	total := 0
	for _, list := range [][]string{s.Spec.Process.Args, s.Spec.Process.Env} {
		for _, a := range list {
			if len(a) >= maxString {
				return fmt.Errorf("argument or environment variable %.20q... has %d bytes, the kernel takes %d: %w",
					a, len(a), maxString-1, define.ErrInvalid)
			}
			total += len(a) + 1 + 8 // and its pointer
		}
	}
	if total > maxStrings {
		return fmt.Errorf("arguments and environment have %d bytes, the kernel takes %d: %w", total, maxStrings, define.ErrInvalid)
	}
	return nil
}

// checkVolumes refuses volumes that links of the root lead into what confines
// the step (CVE-2025-52881); crun 1.8 mounts them there.
func checkVolumes(s *isolation.Step) error {
	for _, m := range s.Spec.Mounts {
		if m.Type != "bind" || m.Destination == "/sys" || strings.HasPrefix(m.Destination, "/sys/") {
			continue
		}
		p, err := resolve(int(s.Root.Fd()), m.Destination)
		if err != nil {
			return fmt.Errorf("volume %s: %w", m.Destination, err)
		}
		for _, top := range [...]string{"/proc", "/sys"} {
			if p == top || strings.HasPrefix(p, top+"/") {
				return fmt.Errorf("volume %s: leads to %s by a link of the root: %w", m.Destination, p, define.ErrEscape)
			}
		}
	}
	return nil
}

// resolve follows the links of unsafePath in root by name, past what does not
// exist: below /proc there is nothing yet. Nothing is opened by its result.
func resolve(root int, unsafePath string) (string, error) {
	rest := strings.Split(unsafePath, "/")
	at := "/"
	links := 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0]) // ".." goes up from the real directory
		rest = rest[1:]
		target, err := readLink(root, next)
		if err != nil {
			return "", err
		}
		if target == "" {
			at = next
			continue
		}
		if links++; links > 40 {
			return "", unix.ELOOP
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// readLink returns "" for what is no link or does not exist.
func readLink(root int, name string) (string, error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return "", nil // no link (EINVAL, ENOENT by kernel version)
	}
	return string(b[:n]), nil
}
