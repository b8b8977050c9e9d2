package isolation

import (
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// namespaces fills s.Linux.Namespaces and the hostname, o's too.
func (s *Spec) namespaces(o *Options) error {
	if err := o.Namespaces.checkUser(o.IDMap, o.Rootless); err != nil {
		return err
	}
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if !o.IDMap.IsZero() {
		list = append(list, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = o.IDMap.UID, o.IDMap.GID
	}
	for _, n := range [...]struct {
		kind specs.LinuxNamespaceType
		mode NamespaceMode
	}{
		{specs.PIDNamespace, o.Namespaces.PID}, {specs.IPCNamespace, o.Namespaces.IPC},
		{specs.UTSNamespace, o.Namespaces.UTS}, {specs.CgroupNamespace, o.Namespaces.Cgroup},
	} {
		own, file, err := n.mode.parse(n.kind)
		if err != nil {
			return err
		}
		if own {
			list = append(list, specs.LinuxNamespace{Type: n.kind, Path: file})
		}
	}
	if o.Network != NetworkHost {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if o.Network == NetworkJoined {
		s.Joined = Joined{specs.NetworkNamespace: o.NetworkNamespace}
	}
	s.Linux.Namespaces = list
	return s.hostname(o)
}

// parse reports whether the step leaves this process's namespace, and for
// which; "" is a new one.
func (m NamespaceMode) parse(kind specs.LinuxNamespaceType) (leaves bool, file string, err error) {
	switch m {
	case "", NamespacePrivate, "container":
		return true, "", nil
	case NamespaceHost:
		return false, "", nil
	}
	m = NamespaceMode(strings.TrimPrefix(string(m), "ns:"))
	if !path.IsAbs(string(m)) || strings.ContainsRune(string(m), 0) {
		return false, "", fmt.Errorf("%s namespace %q: want private, host, or the path of a namespace such as /proc/1/ns/%s: %w",
			kind, string(m), kind, define.ErrInvalid)
	}
	if _, err := os.Stat(string(m)); err != nil {
		remedy := ""
		if strings.HasPrefix(string(m), "/proc/") {
			// The worker has a /proc of its own.
			remedy = "; processes outside of strata's pid namespace are not seen: bind the namespace to a file, as ip-netns(8) does"
		}
		return false, "", fmt.Errorf("%s namespace: %w%s", kind, err, remedy)
	}
	return true, string(m), nil
}

// checkUser accepts what is so anyway, and what the map says.
func (n Namespaces) checkUser(m IDMap, rootless bool) error {
	switch n.User {
	case "":
		return nil
	case NamespaceHost:
		if !m.IsZero() {
			return fmt.Errorf("user namespace host: is mapped already; leave out the mode, or the map of ids: %w", define.ErrInvalid)
		}
		return nil
	case NamespacePrivate, "container":
		if rootless || !m.IsZero() {
			return nil
		}
		return fmt.Errorf("user namespace %s: without a map of ids: %w", n.User, define.ErrInvalid)
	}
	return fmt.Errorf("user namespace %q: want private, host or auto; none that exists is joined: give its map, as /proc/PID/uid_map and gid_map have it: %w",
		string(n.User), define.ErrUnsupported)
}

// hostname sets the step's name. Where its uts namespace is somebody else's,
// that one's name is not changed.
func (s *Spec) hostname(o *Options) error {
	shared := o.Namespaces.UTS
	if shared != "" && shared != NamespacePrivate && shared != "container" {
		if o.Hostname != "" {
			return fmt.Errorf("hostname %q: the step shares the uts namespace %s, whose name it is not to change: %w",
				o.Hostname, shared, define.ErrInvalid)
		}
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		o.Hostname = name
		return nil
	}
	if o.Hostname == "" {
		o.Hostname = randomHostname()
	} else if err := checkHostname(o.Hostname); err != nil {
		return err
	}
	s.Hostname = o.Hostname
	return nil
}
