package isolation

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// IDMap says which users and groups of this process's user namespace those of
// a step are. With one, the step has a user namespace of its own. Step.Root
// and the trees of the builder's must then show their owners through the map.
type IDMap struct {
	UID, GID []specs.LinuxIDMapping `json:",omitempty"`
}

// maxIDMap is the kernel's limit (user_namespaces(7), since Linux 4.15).
const maxIDMap = 340

// ParseIDMap reads triples "inside:outside:size", each a value of its own or
// several in one with colons or commas between. Flag names what they are from.
func ParseIDMap(flag string, values []string) ([]specs.LinuxIDMapping, error) {
	var out []specs.LinuxIDMapping
	for _, v := range values {
		f := strings.FieldsFunc(v, func(r rune) bool { return r == ':' || r == ',' })
		if len(f) == 0 || len(f)%3 != 0 {
			return nil, badIDMap(flag, v)
		}
		for ; len(f) > 0; f = f[3:] {
			var n [3]uint32
			for i := range n {
				u, err := strconv.ParseUint(f[i], 10, 32)
				if err != nil {
					return nil, badIDMap(flag, v)
				}
				n[i] = uint32(u)
			}
			out = append(out, specs.LinuxIDMapping{ContainerID: n[0], HostID: n[1], Size: n[2]})
		}
	}
	return out, checkIDs(flag, out)
}

func badIDMap(flag, v string) error {
	return fmt.Errorf("%s %q: want inside:outside:size, such as 0:100000:65536: %w", flag, v, define.ErrInvalid)
}

// checkIDs refuses what the kernel would.
func checkIDs(name string, list []specs.LinuxIDMapping) error {
	if len(list) > maxIDMap {
		return fmt.Errorf("%s: has %d lines, the kernel takes %d: %w", name, len(list), maxIDMap, define.ErrInvalid)
	}
	for i, m := range list {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > math.MaxUint32 || uint64(m.HostID)+uint64(m.Size) > math.MaxUint32 {
			return fmt.Errorf("%s %s: want ids below 4294967295, and at least one: %w", name, idText(m), define.ErrInvalid)
		}
		for _, o := range list[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) || overlap(m.HostID, o.HostID, m.Size, o.Size) {
				return fmt.Errorf("%s %s: overlaps with %s: %w", name, idText(m), idText(o), define.ErrInvalid)
			}
		}
	}
	return nil
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

func idText(m specs.LinuxIDMapping) string {
	return fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size)
}

func idStrings(list []specs.LinuxIDMapping) []string {
	out := make([]string, len(list))
	for i, m := range list {
		out[i] = idText(m)
	}
	return out
}

// Strings are the lines of the map, in the form that ParseIDMap reads.
func (m IDMap) Strings() (uids, gids []string) { return idStrings(m.UID), idStrings(m.GID) }

// IsZero reports that there is no map.
func (m IDMap) IsZero() bool { return len(m.UID) == 0 && len(m.GID) == 0 }

// Identity reports a map that gives no id another number.
func (m IDMap) Identity() bool {
	same := func(m specs.LinuxIDMapping) bool { return m.ContainerID == m.HostID }
	return !slices.ContainsFunc(slices.Concat(m.UID, m.GID), func(m specs.LinuxIDMapping) bool { return !same(m) })
}

// UserOutside is what a user of the step's is outside of its namespace; ok is
// false where the map has none. Without a map it is itself.
func (m IDMap) UserOutside(id uint32) (outside uint32, ok bool) { return m.outside(m.UID, id) }

// GroupOutside is UserOutside for a group.
func (m IDMap) GroupOutside(id uint32) (outside uint32, ok bool) { return m.outside(m.GID, id) }

func (m IDMap) outside(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	if m.IsZero() {
		return id, true
	}
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// Check reports whether a step can run with the map.
func (m IDMap) Check() error {
	if m.IsZero() {
		return nil
	}
	for _, side := range []struct {
		name string
		list []specs.LinuxIDMapping
	}{{"map of users", m.UID}, {"map of groups", m.GID}} {
		if err := checkIDs(side.name, side.list); err != nil {
			return err
		}
		if _, ok := m.outside(side.list, 0); !ok {
			return fmt.Errorf("%s %s: has no id 0, by which a step is set up: %w", side.name, strings.Join(idStrings(side.list), ","), define.ErrInvalid)
		}
	}
	return nil
}

// checkIDMap reports ids of the step that its map has not.
func (o *Options) checkIDMap() error {
	if err := o.IDMap.Check(); err != nil || o.IDMap.IsZero() {
		return err
	}
	refuse := func(what string, id uint32) error {
		return fmt.Errorf("%s %d: the map of the step's user namespace has no such id; map more of them: %w", what, id, define.ErrUnsupported)
	}
	if _, ok := o.IDMap.UserOutside(o.UID); !ok {
		return refuse("user", o.UID)
	}
	for _, g := range append([]uint32{o.GID}, o.Groups...) {
		if _, ok := o.IDMap.GroupOutside(g); !ok {
			return refuse("group", g)
		}
	}
	return nil
}

// OwnIDs gives each id of this process's user namespace itself. A line of it
// is one of the namespace's own map: the kernel maps no range that lies in two.
func OwnIDs() (m IDMap, err error) {
	if m.UID, err = ownIDs("/proc/self/uid_map"); err == nil {
		m.GID, err = ownIDs("/proc/self/gid_map")
	}
	return m, err
}

func ownIDs(file string) ([]specs.LinuxIDMapping, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("map of ids: %w", err)
	}
	var out []specs.LinuxIDMapping
	for line := range strings.Lines(string(b)) {
		var m specs.LinuxIDMapping
		if n, _ := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); n == 3 {
			m.HostID = m.ContainerID
			out = append(out, m)
		}
	}
	return out, nil
}

// Within divides the lines of the map so that each lies in one of own; what
// lies in none stays as it is.
func (m IDMap) Within(own IDMap) IDMap {
	return IDMap{UID: divide(m.UID, own.UID), GID: divide(m.GID, own.GID)}
}

func divide(list, own []specs.LinuxIDMapping) (out []specs.LinuxIDMapping) {
	for _, m := range list {
		for m.Size > 0 {
			part := m
			for _, o := range own {
				if m.HostID >= o.HostID && m.HostID-o.HostID < o.Size {
					part.Size = min(m.Size, o.Size-(m.HostID-o.HostID))
				}
			}
			out = append(out, part)
			m.ContainerID, m.HostID, m.Size = m.ContainerID+part.Size, m.HostID+part.Size, m.Size-part.Size
		}
	}
	return out
}
