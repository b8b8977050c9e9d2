package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/stratabuild/strata/tests/testenv"
)

// unprivileged is strata as a user who is made for it, with subordinate ids:
// what a user namespace costs is the difference to root's column, in the same
// rows and the same turns.
type unprivileged struct {
	builder
	uid, gid uint32
}

const (
	userTool = "rootless"
	// subordinates are ids that no usual system gives to anybody.
	subordinates = "2100000000-2100065535"
)

// newUnprivileged makes the user, who is removed with the session, and gives
// them a binary that they may execute.
func newUnprivileged(ctx context.Context, s *session, path string) (t unprivileged, err error) {
	for _, tool := range []string{"useradd", "usermod", "userdel", "newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			return t, err
		}
	}
	if err := testenv.Root(); err != nil {
		return t, err
	}
	name := fmt.Sprintf("strata-bench-%d", os.Getpid())
	home := filepath.Join(s.work, "home")
	if _, err := output(ctx, exec.Command("useradd", "--home-dir", home, "--no-create-home", "--shell", "/bin/sh", name)); err != nil {
		return t, err
	}
	s.cleanup = append(s.cleanup, func() error {
		_, err := output(context.Background(), exec.Command("userdel", name))
		return err
	})
	ids, err := output(ctx, exec.Command("sh", "-ec", `for f in subuid subgid; do
	grep -qs "^$1:" /etc/$f || usermod --add-${f}s "$2" "$1"
done
id -u "$1"; id -g "$1"`, "sh", name, subordinates))
	if err != nil {
		return t, err
	}
	numbers := strings.Fields(ids)
	if len(numbers) != 2 {
		return t, fmt.Errorf("user %s: id says %q", name, ids)
	}
	uid, err1 := strconv.ParseUint(numbers[0], 10, 32)
	gid, err2 := strconv.ParseUint(numbers[1], 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return t, err
	}
	t = unprivileged{uid: uint32(uid), gid: uint32(gid)}
	// All above what the user works in is passable, and no more.
	for dir := s.work; dir != s.top; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			return t, err
		}
	}
	binary := filepath.Join(s.work, "strata")
	err = errors.Join(os.Chmod(s.top, 0o711), os.Mkdir(home, 0o700), os.Chown(home, int(uid), int(gid)))
	if err == nil {
		_, err = output(ctx, exec.Command("install", "-m", "755", path, binary))
	}
	env := []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + home, "TMPDIR=" + home, "USER=" + name, "LOGNAME=" + name}
	t.builder = builder{tool: userTool, program: binary, base: s.base, env: env}
	return t, err
}

func (u unprivileged) own(cmd *exec.Cmd) *exec.Cmd {
	if cmd != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
		cmd.Dir = "/"
	}
	return cmd
}

func (u unprivileged) prepare(ctx context.Context, dir string) error {
	if err := os.Chown(dir, int(u.uid), int(u.gid)); err != nil {
		return err
	}
	out, err := output(ctx, u.own(u.call(dir, "pull", "-q", "oci:"+u.base+":"+baseRef)))
	if err != nil {
		return err
	}
	_, err = output(ctx, u.own(u.call(dir, "tag", strings.TrimSpace(out), baseName)))
	return err
}

func (u unprivileged) command(r row, p place) (*exec.Cmd, error) {
	if r.store != nil {
		return nil, nil // filled by root
	}
	cmd, err := u.builder.command(r, p)
	return u.own(cmd), err
}

func (u unprivileged) script(text string, p place) *exec.Cmd {
	return u.own(u.builder.script(text, p))
}
