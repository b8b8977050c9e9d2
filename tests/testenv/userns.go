package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// inMappedNamespace runs a command as root of a user namespace to which
// newuidmap and newgidmap gave this user's ranges.
func inMappedNamespace(args ...string) ([]byte, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	uids, err := idRange("/etc/subuid", me)
	if err != nil {
		return nil, err
	}
	gids, err := idRange("/etc/subgid", me)
	if err != nil {
		return nil, err
	}
	// The shell waits for the maps; what it then executes is root inside and
	// has all capabilities there.
	cmd := exec.Command("sh", append([]string{"-c", `read go && exec "$@"`, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	mapped := errors.Join(
		writeMap("newuidmap", cmd.Process.Pid, os.Geteuid(), uids),
		writeMap("newgidmap", cmd.Process.Pid, os.Getegid(), gids))
	if mapped == nil {
		_, mapped = stdin.Write([]byte("\n"))
	}
	stdin.Close() // without the line, the shell ends here
	err = cmd.Wait()
	if mapped != nil {
		return nil, mapped
	}
	return out.Bytes(), err
}

type ids struct{ first, count string }

// idRange returns the first range that a file such as /etc/subuid gives.
func idRange(file string, u *user.User) (ids, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return ids{}, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == u.Username || f[0] == u.Uid) {
			return ids{f[1], f[2]}, nil
		}
	}
	return ids{}, fmt.Errorf("%s has no range for %s", file, u.Username)
}

func writeMap(program string, pid, self int, r ids) error {
	out, err := exec.Command(program, strconv.Itoa(pid), "0", strconv.Itoa(self), "1", "1", r.first, r.count).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, firstLine(out))
	}
	return nil
}
