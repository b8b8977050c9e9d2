package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

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
	userPrefix   = "strata-bench-"
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
	removeStaleUsers()
	name := fmt.Sprintf("%s%d", userPrefix, os.Getpid())
	s.cleanup = append(s.cleanup, func() error { return removeUser(name) })
	if err := changeUsers("useradd", "--home-dir", "/nonexistent", "--no-create-home", "--shell", "/bin/sh", name); err != nil {
		return t, err
	}
	for _, kind := range []string{"subuid", "subgid"} {
		if hasRange("/etc/"+kind, name) {
			continue
		}
		if err := changeUsers("usermod", "--add-"+kind+"s", subordinates, name); err != nil {
			return t, err
		}
	}
	ids, err := output(ctx, exec.Command("sh", "-ec", `id -u "$1"; id -g "$1"`, "sh", name))
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
	// The user passes the directory that holds all others, and no more.
	err = os.Chmod(s.top, 0o711)
	env := []string{"USER=" + name, "LOGNAME=" + name}
	t.builder = builder{tool: userTool, program: path, base: s.base, env: env}
	return t, err
}

func (u unprivileged) as(cmd *exec.Cmd) *exec.Cmd {
	if cmd != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid}}
		cmd.Dir = "/"
	}
	return cmd
}

func (u unprivileged) prepare(ctx context.Context, dir string) error {
	if err := errors.Join(os.Chown(dir, int(u.uid), int(u.gid)), os.Chown(tempDir(dir), int(u.uid), int(u.gid))); err != nil {
		return err
	}
	out, err := output(ctx, u.as(u.call(dir, "pull", "-q", "oci:"+u.base+":"+baseRef)))
	if err != nil {
		return err
	}
	_, err = output(ctx, u.as(u.call(dir, "tag", strings.TrimSpace(out), baseName)))
	return err
}

func (u unprivileged) command(r row, p place) (*exec.Cmd, error) {
	cmd, err := u.builder.command(r, p)
	if err != nil {
		return nil, err
	}
	return u.as(cmd), nil
}

// own: layers that were unpacked hold files of mapped ids, which stay.
func (u unprivileged) own(dir string) error {
	_, err := output(context.Background(), exec.Command("chown", "-Rh", "--from=0", fmt.Sprintf("%d:%d", u.uid, u.gid), dir))
	return err
}

func (u unprivileged) script(text string, p place) *exec.Cmd {
	return u.as(u.builder.script(text, p))
}

// removeUser ends the processes of a user of ours, and removes them. There may
// be none.
func removeUser(name string) error {
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil || uid == 0 || !strings.HasPrefix(name, userPrefix) {
		return fmt.Errorf("user %s with id %s is not of bench's making", name, u.Uid)
	}
	for until := time.Now().Add(maxEnd); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		left := 0
		for _, pid := range processes() {
			var st syscall.Stat_t
			if syscall.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil && int(st.Uid) == uid {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				left++
			}
		}
		if left == 0 {
			break
		}
	}
	return changeUsers("userdel", name)
}

// changeUsers runs a program that changes /etc/passwd and its like. Another
// one may hold their locks for a moment. It is not ended half-way when bench
// is interrupted: locks, and a user without ids, would stay.
func changeUsers(program string, args ...string) (err error) {
	for range 20 {
		if _, err = output(context.Background(), exec.Command(program, args...)); err == nil {
			return nil
		}
		if !strings.Contains(err.Error(), "lock") {
			return err
		}
		time.Sleep(500 * time.Millisecond)
	}
	return err
}

// hasRange reports a line of the user's in a file as subuid(5).
func hasRange(file, name string) bool {
	b, err := os.ReadFile(file)
	return err == nil && strings.Contains("\n"+string(b), "\n"+name+":")
}

// removeStaleUsers removes those of a bench that was killed. What it left of
// directories has the name of its -dir.
func removeStaleUsers() {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, ":")
		pid, err := strconv.Atoi(strings.TrimPrefix(name, userPrefix))
		if err != nil || !strings.HasPrefix(name, userPrefix) || syscall.Kill(pid, 0) == nil {
			continue
		}
		_ = removeUser(name) // the next bench tries again
	}
}
