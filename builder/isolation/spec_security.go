package isolation

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/define"
)

// security fills what Options.Security is about.
func (s *Spec) security(o Security, caps []string) error {
	s.Process.NoNewPrivileges = o.NoNewPrivileges
	var err error
	switch {
	case o.SeccompUnconfined:
	case len(o.SeccompProfile) > 0:
		s.Linux.Seccomp, err = seccomp.Load(o.SeccompProfile, caps)
	default:
		s.Linux.Seccomp, err = defaultProfile(caps)
	}
	if err != nil {
		return err
	}
	if s.Process.ApparmorProfile, err = apparmorProfile(o.AppArmor); err != nil {
		return err
	}
	return s.hide(o)
}

// apparmorProfile checks that a profile can be applied; that it is loaded is
// seen when it is.
func apparmorProfile(name string) (string, error) {
	if name == "" || name == "unconfined" {
		// Steps keep the profile of this process.
		return "", nil
	}
	if strings.ContainsAny(name, "\x00\n") {
		return "", fmt.Errorf("AppArmor profile %q: want a profile's name: %w", name, define.ErrInvalid)
	}
	on, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(on), "Y") {
		return "", fmt.Errorf("AppArmor profile %q: this host has no AppArmor: leave the option away: %w", name, define.ErrUnsupported)
	}
	return name, nil
}

// hide fills the masked and the read-only paths.
func (s *Spec) hide(o Security) error {
	for _, p := range slices.Concat(o.Mask, o.Unmask) {
		if p != unmaskAll && !path.IsAbs(p) || strings.ContainsRune(p, 0) {
			return fmt.Errorf("path %q to mask or unmask: want an absolute path: %w", p, define.ErrInvalid)
		}
	}
	for _, p := range o.Unmask {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("path %q to unmask: %w: %w", p, err, define.ErrInvalid)
		}
	}
	shown := func(p string) bool {
		return slices.ContainsFunc(o.Unmask, func(u string) bool {
			ok, _ := path.Match(path.Clean(u), p)
			return u == unmaskAll || ok
		})
	}
	s.Linux.MaskedPaths = slices.DeleteFunc(maskedPaths(), shown)
	s.Linux.ReadonlyPaths = slices.DeleteFunc(readonlyPaths(), shown)
	for _, p := range o.Mask {
		p = path.Clean(p)
		if p == "/" || p == unmaskAll {
			return fmt.Errorf("path %q to mask: cannot be hidden: %w", p, define.ErrInvalid)
		}
		if !slices.Contains(s.Linux.MaskedPaths, p) {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, p)
		}
	}
	return nil
}

// unmaskAll stands for all paths.
const unmaskAll = "ALL"
