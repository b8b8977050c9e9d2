package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
)

// user is the id of the users that are made. Nobody has it.
const user = 54327

// place is a kind of host.
type place struct {
	name, what string
	uid        int
	enter      func(dir string) ([]string, error) // the command that the tests are arguments of
	path       func(work string) string           // PATH, "" is the usual one
}

var places = []place{
	{name: "root", what: "root on the host"},
	{name: "mapped", what: "a user with a range of ids (newuidmap)", uid: user, enter: asUser("places:2000000000:65536\n")},
	{name: "single", what: "a user without a range of ids", uid: user, enter: asUser("")},
	{name: "confined", what: "root of a container with docker's default seccomp profile, capabilities and masks", enter: inContainer},
	{name: "one-uid", what: "root of a user namespace with one id", uid: user, enter: oneID},
	{name: "bare", what: "root, with nothing in PATH but strata and busybox", path: func(work string) string { return filepath.Join(work, "busybox") }},
}

// usual is PATH where a place has no other.
const usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command makes the place's directory and what runs a program there.
func (p place) command(work string) (cmd *exec.Cmd, done func(), err error) {
	dir := filepath.Join(work, "place-"+p.name)
	for _, d := range []string{dir, dir + "/tmp", dir + "/home", dir + "/run"} {
		// Scripts become other users, who must find their files.
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, nil, err
		}
		if err := os.Chown(d, p.uid, p.uid); err != nil {
			return nil, nil, err
		}
	}
	var args []string
	if p.enter != nil {
		if args, err = p.enter(dir); err != nil {
			return nil, nil, err
		}
	}
	path := usual
	if p.path != nil {
		path = p.path(work)
	}
	args = append([]string{"env", "-i", "PATH=" + path, "HOME=" + dir + "/home", "TMPDIR=" + dir + "/tmp", "XDG_RUNTIME_DIR=" + dir + "/run",
		"LANG=C.UTF-8", "STRATA_BINARY=" + filepath.Join(work, "strata", "strata")}, args...)
	return exec.Command(args[0], args[1:]...), func() {}, nil
}

// asUser becomes a user whom only this mount namespace knows. It has an /etc
// of its own: a mount on /etc/passwd alone would go when somebody adds a user
// to the host meanwhile, since that file is replaced by another.
func asUser(subids string) func(dir string) ([]string, error) {
	return func(dir string) ([]string, error) {
		etc := filepath.Join(dir, "etc")
		if out, err := exec.Command("cp", "-a", "/etc", etc).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("cp -a /etc %s: %w: %s", etc, err, out)
		}
		for name, more := range map[string]string{
			"passwd": fmt.Sprintf("places:x:%d:%d::%s/home:/bin/sh\n", user, user, dir), "group": fmt.Sprintf("places:x:%d:\n", user),
			"subuid": subids, "subgid": subids,
		} {
			b := []byte(nil)
			if !strings.HasPrefix(name, "sub") {
				var err error
				if b, err = os.ReadFile("/etc/" + name); err != nil {
					return nil, err
				}
			}
			if err := os.WriteFile(filepath.Join(etc, name), append(b, more...), 0o644); err != nil {
				return nil, err
			}
		}
		script := `mount --bind "$0" /etc || exit 1
exec setpriv --reuid ` + fmt.Sprint(user) + ` --regid ` + fmt.Sprint(user) + ` --clear-groups "$@"`
		return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, etc}, nil
	}
}

// oneID is root of a user namespace that a user without anything made.
func oneID(string) ([]string, error) {
	id := fmt.Sprint(user)
	return []string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups",
		"unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc",
		// A container has a /var of its own.
		"sh", "-c", `mount -t tmpfs tmpfs /var/lib/containers; exec "$@"`, "sh"}, nil
}

// dockerCaps are those that docker gives.
var dockerCaps = strings.Fields("CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_NET_BIND_SERVICE " +
	"CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT")

// inContainer runs a program in a container of runc's on a copy-on-write view
// of the host's root. The command's arguments go into its config.json.
func inContainer(dir string) ([]string, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, fmt.Errorf("needs runc: %w", err)
	}
	bundle := filepath.Join(dir, "bundle")
	if err := os.Mkdir(bundle, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.Command("runc", "spec")
	cmd.Dir = bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("runc spec: %w: %s", err, out)
	}
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	work := filepath.Dir(dir)
	s.Process.Terminal = false
	s.Process.NoNewPrivileges = false
	s.Process.Rlimits = nil
	s.Process.Args = []string{"sh", "-c", `cd "$1"; . "$0"`, filepath.Join(bundle, "command"), filepath.Join(work, "tests")}
	s.Process.Env = []string{"PATH=" + usual, "HOME=" + dir + "/home", "TMPDIR=" + dir + "/tmp", "XDG_RUNTIME_DIR=" + dir + "/run",
		"LANG=C.UTF-8", "STRATA_BINARY=" + filepath.Join(work, "strata", "strata")}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps}
	s.Root = &specs.Root{Path: filepath.Join(bundle, "root")}
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: work, Type: "bind", Source: work, Options: []string{"bind", "rw"}},
		specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}})
	if s.Linux.Seccomp, err = seccomp.Default(dockerCaps); err != nil {
		return nil, err
	}
	if b, err = json.Marshal(&s); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	script := `b=$0
mkdir -p "$b/root" "$b/upper" "$b/scratch" && mount -t overlay overlay -o "lowerdir=/,upperdir=$b/upper,workdir=$b/scratch" "$b/root" || exit 1
{ printf exec; for a; do printf " '%s'" "$a"; done; echo; } >"$b/command"
exec runc --root "$b/state" run --bundle "$b" strata-places-$$`
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, bundle}, nil
}
