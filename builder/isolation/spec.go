package isolation

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/define"
)

// Spec is a step's container: the runtime-spec document, and what the
// document can only name but not hold. Root is nil: Step.Root holds it.
//
// Drivers mount Spec.Mounts in their order, then Files. The seccomp profile
// is shared between Specs and must not be changed.
type Spec struct {
	specs.Spec
	// Files are small files mounted over the root's, by destination
	// (/etc/resolv.conf, /etc/hosts, /etc/hostname). They are the step's own:
	// mode 0644, writable by root, gone with the step. A symbolic link at the
	// destination is covered, not followed.
	Files map[string][]byte
	// Trees are the sources of mounts, by destination, that are given by
	// descriptor rather than by path. Their entry in Mounts has type bind and
	// an empty source.
	Trees map[string]*os.File
	// Joined are namespaces that the step joins, by type: their entry in
	// Linux.Namespaces has an empty path. They stay the caller's.
	Joined Joined
	// Limits are applied by the driver. Linux.Resources is not used.
	Limits Limits
	// KeepGroups leaves this process's supplementary groups to the step.
	KeepGroups bool
	// Terminal asks for a terminal. Process.Terminal and Process.ConsoleSize
	// say the same in the document.
	Terminal *Terminal
	// Told is who the step's processes are told to be, by those who answer for
	// Step.Owners; nil: who they are. Only the embedded driver can do it.
	Told *Identity
}

// NewSpec translates o. Invalid input is an error that names the field and
// the form that is wanted, and wraps define.ErrInvalid.
func NewSpec(o Options) (*Spec, error) {
	if o.Network == "" {
		o.Network = NetworkHost
	}
	if o.Network != NetworkHost && o.Network != NetworkNone && (o.Network != NetworkJoined || o.NetworkNamespace == nil) {
		return nil, fmt.Errorf("network %q: want host or none: %w", o.Network, define.ErrInvalid)
	}
	if err := o.Limits.Check(); err != nil {
		return nil, err
	}
	s := &Spec{Terminal: o.Terminal, Limits: o.Limits, KeepGroups: o.KeepGroups}
	s.Version = specs.Version
	s.Linux = &specs.Linux{}
	if err := s.namespaces(&o); err != nil {
		return nil, err
	}
	caps, err := capabilities(o)
	if err != nil {
		return nil, err
	}
	if s.Process, err = process(o, caps); err != nil {
		return nil, err
	}
	if s.Process.Rlimits, err = rlimits(o.Ulimits, o.Rootless); err != nil {
		return nil, err
	}
	if err := s.security(o.Security, caps); err != nil {
		return nil, err
	}
	if err := s.mounts(o); err != nil {
		return nil, err
	}
	return s, s.files(o)
}

// HasNamespace reports whether the step gets a namespace of the type.
func (s *Spec) HasNamespace(t specs.LinuxNamespaceType) bool {
	if s.Linux == nil {
		return false
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == t {
			return true
		}
	}
	return false
}

// process translates what the first process is: arguments, environment,
// directory, ids and capabilities.
func process(o Options, caps []string) (*specs.Process, error) {
	if len(o.Args) == 0 || o.Args[0] == "" {
		return nil, fmt.Errorf("step without a command: want at least one argument: %w", define.ErrInvalid)
	}
	for _, a := range o.Args {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("argument %q: holds a zero byte: %w", a, define.ErrInvalid)
		}
	}
	env, err := environment(o.Env)
	if err != nil {
		return nil, err
	}
	if o.Cwd == "" {
		o.Cwd = "/"
	}
	if !path.IsAbs(o.Cwd) || strings.ContainsRune(o.Cwd, 0) {
		return nil, fmt.Errorf("working directory %q: want an absolute path: %w", o.Cwd, define.ErrInvalid)
	}
	if err := o.CheckUser(); err != nil {
		return nil, err
	}
	groups := o.Groups
	if o.SingleID {
		// setgroups(2) is denied where only one id is mapped.
		groups = nil
	}
	set := &specs.LinuxCapabilities{Bounding: caps}
	if o.UID == 0 {
		set.Effective, set.Permitted = caps, caps
	}
	p := &specs.Process{
		User:            specs.User{UID: o.UID, GID: o.GID, AdditionalGids: groups},
		Args:            o.Args,
		Env:             env,
		Cwd:             path.Clean(o.Cwd),
		Capabilities:    set,
		NoNewPrivileges: o.NoNewPrivileges,
	}
	o.Terminal.apply(p)
	return p, nil
}

// CheckUser returns the error that NewSpec gives where the user of the step
// is not mapped, so that nothing is prepared for it. It wraps
// define.ErrUnsupported.
func (o *Options) CheckUser() error {
	if o.SingleID && (o.UID != 0 || o.GID != 0) {
		return fmt.Errorf("user %d:%d: this user namespace maps only id 0; "+
			"add ranges to /etc/subuid and /etc/subgid and install newuidmap: %w", o.UID, o.GID, define.ErrUnsupported)
	}
	return o.checkIDMap()
}

// environment drops entries that set nothing. They come from images, and some
// tools fill an entry without "=" from the host's environment (CVE-2026-57231
// and its kin): dropping it here settles that for every driver.
func environment(in []string) ([]string, error) {
	out := make([]string, 0, len(in))
	for _, e := range in {
		if strings.ContainsRune(e, 0) {
			name, _, _ := strings.Cut(e, "=")
			return nil, fmt.Errorf("environment %q: holds a zero byte: %w", name, define.ErrInvalid)
		}
		if strings.IndexByte(e, '=') > 0 {
			out = append(out, e)
		}
	}
	return out, nil
}

// Check reports whether the Spec is complete enough to be run; drivers call
// it first.
func (s *Step) Check() error {
	switch {
	case s.Spec == nil || s.Spec.Process == nil || s.Spec.Linux == nil:
		return errors.New("step without a spec: make it with NewSpec")
	case len(s.Spec.Process.Args) == 0:
		return errors.New("step without a command")
	case s.Root == nil:
		return errors.New("step without a root")
	}
	return s.Spec.Terminal.check(s.Spec.Process)
}
