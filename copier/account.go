package copier

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
)

// User is an account resolved in a root's /etc/passwd and /etc/group.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; the primary group is among them
	// (CVE-2022-2990 and its kin).
	Groups []uint32
	// Home is "/" when the account is unknown.
	Home string
	// Name is the account's name, "" when unknown.
	Name string
}

// accountLimit bounds /etc/passwd and /etc/group (CVE-2024-9676,
// CVE-2026-47262).
const accountLimit = 10 << 20

// maxID is the largest id taken: tools with signed ids wrap above it
// (CVE-2024-40635).
const maxID = 1<<31 - 1

// User resolves "name", "uid", "name:group", "uid:gid" and mixtures, as USER
// means them; "" is root. Digits are always numbers, even when an account
// of that name exists (CVE-2016-3697). Account files of more than 10 MiB are
// refused; numbers above 2^31-1 are errors. With a group given, it is the only
// one; an unknown number without one has group 0.
func (r *Root) User(spec string) (User, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	uid, isUID, err := parseID(name)
	if err != nil {
		return User{}, specError(spec, err)
	}
	u := User{UID: uid, Home: "/"}
	accounts, err := r.accountFile("/etc/passwd")
	if err != nil {
		return User{}, specError(spec, err)
	}
	acc, found := findAccount(accounts, name, uid, isUID)
	switch {
	case found:
		u = User{UID: acc.uid, GID: acc.gid, Home: acc.home, Name: acc.name}
		if u.Home == "" {
			u.Home = "/"
		}
	case !isUID:
		return User{}, specError(spec, missing(spec, name, "account", "/etc/passwd"))
	}
	if hasGroup && group != "" {
		if u.GID, err = r.group(spec, group); err != nil {
			return User{}, specError(spec, err)
		}
		u.Groups = []uint32{u.GID}
		return u, nil
	}
	u.Groups = []uint32{u.GID}
	if u.Name != "" {
		groups, err := r.accountFile("/etc/group")
		if err != nil {
			return User{}, specError(spec, err)
		}
		u.Groups = appendMemberships(u.Groups, groups, u.Name)
	}
	return u, nil
}

// Owner resolves --chown's "user[:group]" (group: the user's primary group
// for a known name; the same number as the user for a number).
func (r *Root) Owner(spec string) (Owner, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" && hasGroup {
		name = "0"
	}
	uid, isUID, err := parseID(name)
	if err != nil {
		return Owner{}, specError(spec, err)
	}
	if name == "" {
		return Owner{}, specError(spec, fmt.Errorf("want user[:group]: %w", define.ErrInvalid))
	}
	gid := uid
	if !isUID {
		accounts, err := r.accountFile("/etc/passwd")
		if err != nil {
			return Owner{}, specError(spec, err)
		}
		acc, found := findAccount(accounts, name, 0, false)
		if !found {
			return Owner{}, specError(spec, missing(spec, name, "account", "/etc/passwd"))
		}
		uid, gid = acc.uid, acc.gid
	}
	if hasGroup && group != "" {
		if gid, err = r.group(spec, group); err != nil {
			return Owner{}, specError(spec, err)
		}
	}
	return Owner{UID: int(uid), GID: int(gid)}, nil
}

func specError(spec string, err error) error {
	return fmt.Errorf("user %s: %w", strconv.Quote(spec), err)
}

// missing is the error of a name that a file of the image does not have; what
// the whole text asked for is said in front of it.
func missing(asked, name, kind, file string) error {
	what := kind + " " + show(name)
	if name == asked {
		what = kind + " of that name"
	}
	return fmt.Errorf("no %s in %s of the image: make it in an earlier step, or use a number: %w", what, file, define.ErrNotFound)
}

// Group resolves a group's name or number, with the same limits as User. An
// unknown name is define.ErrNotFound.
func (r *Root) Group(group string) (uint32, error) {
	gid, err := r.group(group, group)
	if err != nil {
		return 0, fmt.Errorf("group %s: %w", strconv.Quote(group), err)
	}
	return gid, nil
}

// group is Group for those who name what is asked for.
func (r *Root) group(asked, group string) (uint32, error) {
	gid, isGID, err := parseID(group)
	if err != nil || isGID {
		return gid, err
	}
	groups, err := r.accountFile("/etc/group")
	if err != nil {
		return 0, err
	}
	for fields := range accountLines(groups, 3) {
		if string(fields[0]) != group {
			continue
		}
		if gid, ok := fieldID(fields[2]); ok {
			return gid, nil
		}
	}
	return 0, missing(asked, group, "group", "/etc/group")
}

// accountFile reads a file of accounts; a missing one is empty.
func (r *Root) accountFile(name string) ([]byte, error) {
	b, err := r.ReadFile(name, accountLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// parseID tells a number from a name. What starts like a number and is none,
// or is out of range, is an error rather than a name: an account "-1" or
// "4294967296" in an image must not become root.
func parseID(s string) (id uint32, isID bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	digits := true
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f || c == '/' {
			return 0, false, fmt.Errorf("%s is neither a name nor a number: %w", strconv.Quote(s), define.ErrInvalid)
		}
		digits = digits && c >= '0' && c <= '9'
	}
	if !digits {
		// Names may start with a digit (Alpine's 3proxy), never with a sign.
		if c := s[0]; c == '-' || c == '+' {
			return 0, false, fmt.Errorf("%s is neither a name nor a decimal number: %w", strconv.Quote(s), define.ErrInvalid)
		}
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, false, fmt.Errorf("id %s is larger than %d: %w", s, maxID, define.ErrInvalid)
	}
	return uint32(n), true, nil
}

type account struct {
	name, home string
	uid, gid   uint32
}

func findAccount(passwd []byte, name string, uid uint32, byUID bool) (account, bool) {
	for fields := range accountLines(passwd, 4) {
		if !byUID && string(fields[0]) != name {
			continue
		}
		id, ok := fieldID(fields[2])
		if !ok || byUID && id != uid {
			continue
		}
		gid, ok := fieldID(fields[3])
		if !ok {
			continue
		}
		a := account{name: string(fields[0]), uid: id, gid: gid}
		if len(fields) > 5 {
			a.home = string(fields[5])
		}
		return a, true
	}
	return account{}, false
}

// appendMemberships adds the groups that list name as a member, each once.
func appendMemberships(out []uint32, groups []byte, name string) []uint32 {
	seen := map[uint32]bool{}
	for _, gid := range out {
		seen[gid] = true
	}
	for fields := range accountLines(groups, 4) {
		gid, ok := fieldID(fields[2])
		if !ok || seen[gid] {
			continue
		}
		for member := range bytes.SplitSeq(fields[3], []byte{','}) {
			if string(member) == name {
				out, seen[gid] = append(out, gid), true
				break
			}
		}
		// The kernel takes no more (NGROUPS_MAX).
		if len(out) >= 65536 {
			break
		}
	}
	return out
}

// accountLines yields the colon-separated fields of each line that has at
// least want of them and a name; the slice is valid until the next.
func accountLines(b []byte, want int) func(func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		var fields [][]byte
		for line := range bytes.SplitSeq(b, []byte{'\n'}) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 || line[0] == '#' || line[0] == '+' || line[0] == '-' {
				continue
			}
			fields = fields[:0]
			for f := range bytes.SplitSeq(line, []byte{':'}) {
				if fields = append(fields, f); len(fields) > 7 {
					break
				}
			}
			if len(fields) >= want && len(fields[0]) > 0 && !yield(fields) {
				return
			}
		}
	}
}

func fieldID(b []byte) (uint32, bool) {
	n, err := strconv.ParseUint(string(b), 10, 32)
	return uint32(n), err == nil && n <= maxID
}
