package containerfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Mount is one --mount of RUN: BuildKit's options, and those that only
// buildah and podman have.
type Mount struct {
	*instructions.Mount
	MountOptions
}

// MountOptions are buildah's options of RUN --mount (buildah-run(1)).
// tmpfs-size is instructions.Mount.SizeLimit; consistency says nothing.
type MountOptions struct {
	// Propagation is shared, rshared, private, rprivate, slave, rslave or "".
	Propagation string
	// NonRecursive leaves out what is mounted below the source.
	NonRecursive bool
	// Relabel is "shared" (z), "private" (Z) or "".
	Relabel string
	// Chown (U) gives what the step sees to the step's user.
	Chown                 bool
	NoSUID, NoDev, NoExec bool
	// NoDereference shows a source that is a symbolic link as the link.
	NoDereference bool
	// TmpfsMode holds permission, setuid, setgid and sticky bits.
	TmpfsMode *uint32
	// CopyUp begins a tmpfs with what the image has at the target.
	CopyUp bool
}

// ownMountKeys are the keys that BuildKit's parser does not know, with the
// types that they are for.
func ownMountKeys(key string) []instructions.MountType {
	const bind, cache, tmpfs = instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs
	switch key {
	case "nosuid", "nodev", "noexec":
		return []instructions.MountType{bind, cache, tmpfs}
	case "bind-propagation", "shared", "rshared", "private", "rprivate", "slave", "rslave", "bind-nonrecursive", "relabel", "z", "Z", "U", "consistency":
		return []instructions.MountType{bind, cache}
	case "no-dereference":
		return []instructions.MountType{bind}
	case "tmpfs-size", "tmpfs-mode", "tmpcopyup":
		return []instructions.MountType{tmpfs}
	}
	return nil
}

// mountField is one option of buildah's as written.
type mountField struct {
	key, value string
	hasValue   bool
}

// splitMount takes buildah's options out of the value of --mount. What cannot
// be read is left in: BuildKit's parser says what is wrong with it.
func splitMount(value string) (rest string, own []mountField) {
	var kept []string
	for _, raw := range splitFields(value) {
		text := raw
		if len(raw) >= 2 && raw[0] == '"' && raw[len(raw)-1] == '"' {
			text = strings.ReplaceAll(raw[1:len(raw)-1], `""`, `"`)
		}
		f := mountField{}
		f.key, f.value, f.hasValue = strings.Cut(text, "=")
		if len(f.key) > 1 { // z and Z are two options
			f.key = strings.ToLower(f.key)
		}
		if ownMountKeys(f.key) == nil {
			kept = append(kept, raw)
			continue
		}
		own = append(own, f)
	}
	if own == nil {
		return value, nil
	}
	if kept == nil {
		return "type=" + string(instructions.MountTypeBind), own // the default: no value at all is an error of its own
	}
	return strings.Join(kept, ","), own
}

// splitFields splits at commas outside of double quotes, which stay.
func splitFields(s string) []string {
	var fields []string
	start, quoted := 0, false
	for i := range len(s) {
		switch s[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				fields = append(fields, s[start:i])
				start = i + 1
			}
		}
	}
	return append(fields, s[start:])
}

const mountFlag = "--mount="

// withoutOwnMountKeys returns the node as BuildKit's parser takes it.
func withoutOwnMountKeys(node *parser.Node) *parser.Node {
	if node == nil || !strings.EqualFold(node.Value, "RUN") {
		return node
	}
	var flags []string
	for i, f := range node.Flags {
		value, ok := strings.CutPrefix(f, mountFlag)
		if !ok {
			continue
		}
		rest, own := splitMount(value)
		if own == nil {
			continue
		}
		if flags == nil {
			flags = slices.Clone(node.Flags)
		}
		flags[i] = mountFlag + rest
	}
	if flags == nil {
		return node
	}
	n := *node
	n.Flags = flags
	return &n
}

// Mounts returns the mounts of a RUN whose Command was expanded; expand
// expands the values of buildah's options in the same way.
func (i Instruction) Mounts(expand func(word string) (string, error)) ([]Mount, error) {
	cmd, ok := i.Command.(*instructions.RunCommand)
	if !ok || i.node == nil {
		return nil, nil
	}
	parsed := instructions.GetMounts(cmd)
	list := make([]Mount, 0, len(parsed))
	for _, f := range i.node.Flags {
		value, ok := strings.CutPrefix(f, mountFlag)
		if !ok || len(list) == len(parsed) {
			continue
		}
		m := Mount{Mount: parsed[len(list)]}
		_, own := splitMount(value)
		for _, o := range own {
			if err := m.set(o, expand); err != nil {
				return nil, fmt.Errorf("--mount: %w", err)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

// set applies one of buildah's options; of two that contradict each other the
// later counts.
func (m *Mount) set(f mountField, expand func(string) (string, error)) error {
	if !slices.Contains(ownMountKeys(f.key), m.Type) {
		return fmt.Errorf("key %s is not for type=%s", f.key, m.Type)
	}
	value, err := expand(f.value)
	if err != nil {
		return err
	}
	switch f.key {
	case "bind-propagation", "relabel", "consistency", "tmpfs-size", "tmpfs-mode":
		if value == "" {
			return fmt.Errorf("%s wants a value", f.key)
		}
		return m.setValue(f.key, value)
	}
	on := true
	if f.hasValue {
		if on, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("%s=%s: want true or false", f.key, quoteWord(value))
		}
	}
	m.setFlag(f.key, on)
	return nil
}

func (m *Mount) setFlag(key string, on bool) {
	word := func(to *string, value string) {
		if on {
			*to = value
		} else if *to == value {
			*to = ""
		}
	}
	switch key {
	case "nosuid":
		m.NoSUID = on
	case "nodev":
		m.NoDev = on
	case "noexec":
		m.NoExec = on
	case "bind-nonrecursive":
		m.NonRecursive = on
	case "no-dereference":
		m.NoDereference = on
	case "U":
		m.Chown = on
	case "tmpcopyup":
		m.CopyUp = on
	case "z":
		word(&m.Relabel, "shared")
	case "Z":
		word(&m.Relabel, "private")
	default:
		word(&m.Propagation, key)
	}
}

func (m *Mount) setValue(key, value string) error {
	among := func(words ...string) error {
		if slices.Contains(words, value) {
			return nil
		}
		return fmt.Errorf("%s=%s: want one of %s%s", key, quoteWord(value), strings.Join(words, ", "), orNearest(value, words))
	}
	switch key {
	case "bind-propagation":
		m.Propagation = value
		return among("private", "rprivate", "shared", "rshared", "slave", "rslave")
	case "relabel":
		m.Relabel = value
		return among("private", "shared")
	case "consistency":
		return among("consistent", "cached", "delegated", "default")
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil || n <= 0 {
			return fmt.Errorf("tmpfs-size=%s: want bytes, or a number with a unit such as k, m or g", quoteWord(value))
		}
		m.SizeLimit = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil || n > 0o7777 {
			return fmt.Errorf("tmpfs-mode=%s: want octal digits such as 0700", quoteWord(value))
		}
		mode := uint32(n)
		m.TmpfsMode = &mode
	}
	return nil
}
