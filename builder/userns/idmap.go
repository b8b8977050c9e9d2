package userns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
)

// idRange is a line of /etc/subuid: count ids from start on.
type idRange struct{ start, count uint32 }

// parseSubIDs reads a file as subuid(5) describes it and returns the ranges
// of an account, given by name or number. Lines that are malformed are passed
// over, as newuidmap does.
func parseSubIDs(r io.Reader, names ...string) ([]idRange, error) {
	var out []idRange
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		for _, n := range names {
			if n == "" || f[0] != n {
				continue
			}
			start, err1 := strconv.ParseUint(f[1], 10, 32)
			count, err2 := strconv.ParseUint(f[2], 10, 32)
			if err1 == nil && err2 == nil && count > 0 && start+count <= 1<<32-1 {
				out = append(out, idRange{uint32(start), uint32(count)})
			}
			break
		}
	}
	return out, s.Err()
}

// subIDs returns the ranges that the file gives to the user.
func subIDs(file string, uid int) ([]idRange, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseSubIDs(f, userName(uid), strconv.Itoa(uid))
}

// userName is the account's name. One that is not in /etc/passwd (a directory
// service) is taken from the environment; newuidmap checks it.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// mapper writes a full map with newuidmap and newgidmap.
type mapper struct {
	uidTool, gidTool string
	uidArgs, gidArgs []string
}

// newMapper returns the mapper for a user, or why there is none, with the
// remedy.
func newMapper(uid, gid int) (*mapper, error) {
	m := &mapper{}
	for _, side := range []struct {
		tool, file string
		path       *string
		args       *[]string
		id         int
	}{
		{"newuidmap", "/etc/subuid", &m.uidTool, &m.uidArgs, uid},
		{"newgidmap", "/etc/subgid", &m.gidTool, &m.gidArgs, gid},
	} {
		path, err := exec.LookPath(side.tool)
		if err != nil {
			return nil, fmt.Errorf("%s is not installed (package uidmap or shadow-utils)", side.tool)
		}
		ranges, err := subIDs(side.file, uid)
		if err != nil {
			return nil, err
		}
		if len(ranges) == 0 {
			return nil, fmt.Errorf("%s has no range for the user (as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s)",
				side.file, userName(uid))
		}
		*side.path = path
		*side.args = mapArgs(side.id, ranges)
	}
	return m, nil
}

// mapArgs are the arguments of newuidmap after the process number.
func mapArgs(own int, ranges []idRange) []string {
	args := []string{"0", strconv.Itoa(own), "1"}
	next := uint64(1)
	for _, r := range ranges {
		args = append(args, strconv.FormatUint(next, 10), strconv.FormatUint(uint64(r.start), 10), strconv.FormatUint(uint64(r.count), 10))
		next += uint64(r.count)
	}
	return args
}

// run writes the maps of a process, both at once.
func (m *mapper) run(pid int) error {
	var wg sync.WaitGroup
	var errs [2]error
	for i, c := range []struct {
		tool string
		args []string
	}{{m.uidTool, m.uidArgs}, {m.gidTool, m.gidArgs}} {
		wg.Go(func() {
			out, err := exec.Command(c.tool, append([]string{strconv.Itoa(pid)}, c.args...)...).CombinedOutput()
			if err != nil {
				text, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
				if text == "" {
					text = c.tool + ": " + err.Error()
				}
				errs[i] = errors.New(text)
			}
		})
	}
	wg.Wait()
	if errs[0] != nil {
		return errs[0]
	}
	return errs[1]
}

// mapping is one line of an id map: size ids from inside on are outside's.
type mapping struct{ inside, outside, size int }

func oneID(id int) []mapping { return []mapping{{0, id, 1}} }

// identity maps every id of our user namespace to itself.
func identity(file string) (out []mapping) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for f := strings.Fields(string(b)); len(f) >= 3; f = f[3:] {
		start, err1 := strconv.ParseUint(f[0], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			out = append(out, mapping{int(start), int(start), int(size)})
		}
	}
	return out
}

// writeMaps writes the maps of a process that we started in a user namespace.
// Without privilege a group may be mapped only once the process has lost
// setgroups(2) (user_namespaces(7), CVE-2014-8989).
func writeMaps(pid int, uids, gids []mapping, setgroups bool) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if !setgroups {
		if err := os.WriteFile(dir+"setgroups", []byte("deny"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, side := range []struct {
		file string
		list []mapping
	}{{"gid_map", gids}, {"uid_map", uids}} {
		var b strings.Builder
		for _, m := range side.list {
			fmt.Fprintf(&b, "%d %d %d\n", m.inside, m.outside, m.size)
		}
		if err := os.WriteFile(dir+side.file, []byte(b.String()), 0); err != nil {
			return err
		}
	}
	return nil
}
