package network

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/stratabuild/strata/define"
)

// Kind is a way to make a network.
type Kind string

// Kinds of networks.
const (
	// Default is Private where that works, and nothing where it does not.
	Default Kind = ""
	// Private is the best of what this host offers.
	Private Kind = "private"
	// Bridge has the kernel forward and masquerade. For root.
	Bridge Kind = "bridge"
	// Path is a namespace that exists, by its file.
	Path Kind = "ns"
	// Process is the namespace of a process, by its number on the host.
	Process Kind = "container"
	// Pasta and Slirp4netns are the programs of these names.
	Pasta       Kind = "pasta"
	Slirp4netns Kind = "slirp4netns"
	// Host and None are told apart here and opened by nobody.
	Host Kind = "host"
	None Kind = "none"
)

// Mode is a kind with what it needs to know.
type Mode struct {
	Kind Kind
	// Path is the namespace's file (Kind Path), PID the process (Process).
	Path string
	PID  int
	// HostLoopback lets the gateway's address lead to 127.0.0.1 and ::1 of
	// the host in place of the host's own address.
	HostLoopback bool
	// Args are further arguments of pasta or slirp4netns.
	Args []string
}

// Forms is what Parse accepts, for messages.
const Forms = "private, host, none, bridge, ns:PATH, container:PID, pasta or slirp4netns"

// Parse reads the value of --network. "" and "default" are Default.
func Parse(s string) (Mode, error) {
	kind, rest, more := strings.Cut(s, ":")
	m := Mode{Kind: Kind(kind)}
	bad := func(why string) (Mode, error) {
		return Mode{}, fmt.Errorf("network %q: %s: %w", s, why, define.ErrInvalid)
	}
	switch m.Kind {
	case Default, "default":
		m.Kind = Default
		if more {
			return bad("want " + Forms)
		}
	case Host, None:
		if more {
			return bad("takes no options")
		}
	case Private, Bridge:
		if more {
			return m.options(s, rest)
		}
	case Path:
		if !path.IsAbs(rest) || strings.ContainsRune(rest, 0) {
			return bad("want an absolute path, such as ns:/run/netns/build")
		}
		m.Path = rest
	case Process:
		pid, err := strconv.Atoi(rest)
		if err != nil || pid < 1 {
			return bad("want the number of a process in it, such as container:$(podman inspect -f {{.State.Pid}} NAME)")
		}
		m.PID = pid
	case Pasta:
		// As podman has it: arguments with commas between them.
		if more && rest != "" {
			m.Args = strings.Split(rest, ",")
		}
	case Slirp4netns:
		if more {
			return m.options(s, rest)
		}
	default:
		return bad("want " + Forms)
	}
	return m, nil
}

// options reads name=value pairs. The one there is, podman gives slirp4netns.
func (m Mode) options(s, list string) (Mode, error) {
	for o := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(o, "=")
		on, err := strconv.ParseBool(value)
		if name != "allow_host_loopback" || err != nil || m.Kind == Bridge {
			return Mode{}, fmt.Errorf("network %q: option %q: want allow_host_loopback=true, of private or slirp4netns: %w", s, o, define.ErrInvalid)
		}
		m.HostLoopback = on
	}
	return m, nil
}
