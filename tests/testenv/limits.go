package testenv

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/stratabuild/strata/builder/cgroup"
)

// Limits: this process may make control groups with limits of memory and
// processes, as root and in a group that was delegated.
var Limits = Condition(sync.OnceValue(func() error {
	// Not by systemd, which would put this process elsewhere.
	g, err := cgroup.New(cgroup.Limits{Memory: 64 << 20, PIDs: 100, Manager: cgroup.ManagerFiles})
	if err != nil {
		return fmt.Errorf("limits cannot be set here: %w", err)
	}
	return g.Remove()
}))

// Scope: systemd makes scopes with delegated control groups for this user, and
// control groups are of version 2 alone.
var Scope = Condition(sync.OnceValue(func() error {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return errors.New("needs control groups of version 2 alone")
	}
	args := []string{"systemd-run", "--scope", "--quiet", "-p", "Delegate=yes", "true"}
	if os.Geteuid() != 0 {
		args = append([]string{"systemd-run", "--user"}, args[1:]...)
	}
	return try("systemd makes no scope", args...)
}))

// AppArmor: the kernel has it switched on, and this process may load profiles.
var AppArmor = Condition(sync.OnceValue(func() error {
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
		return errors.New("needs AppArmor")
	}
	if err := Root(); err != nil {
		return err
	}
	return Tool("apparmor_parser")()
}))
