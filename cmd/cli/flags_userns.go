package cli

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/userns"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah"
)

// usernsFlags say which users of the host those of steps are.
type usernsFlags struct {
	mode        string
	uids, gids  []string
	user, group string
}

func (u *usernsFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&u.mode, "userns", "", "user namespace of RUN steps: host (the one that strata runs in), private (one of their own), or auto[:size=N,uidmapping=...,gidmapping=...] (with ids that the user containers of /etc/subuid has and nobody else uses); give the `mode` (default host, and private with a map)")
	fs.StringSliceVar(&u.uids, "userns-uid-map", nil, "run RUN steps in a user namespace whose users are these of the host, as `inside:outside:size`, such as 0:100000:65536; layers and images are the same as without (default: as --userns-gid-map)")
	fs.StringSliceVar(&u.gids, "userns-gid-map", nil, "the same for groups, as `inside:outside:size` (default: as --userns-uid-map)")
	fs.StringVar(&u.user, "userns-uid-map-user", "", "map users to the ranges that /etc/subuid gives to this `user`, from 0 on (default: --userns-gid-map-group)")
	fs.StringVar(&u.group, "userns-gid-map-group", "", "map groups to the ranges that /etc/subgid gives to this `group`, from 0 on (default: --userns-uid-map-user)")
	_ = cmd.RegisterFlagCompletionFunc("userns", fixedValues("host", "private", "auto"))
}

// options checks the values and puts them into o.
func (u *usernsFlags) options(o *imagebuildah.RunOptions) (err error) {
	if err := u.checkMode(); err != nil {
		return err
	}
	o.Namespaces.User = isolation.NamespaceMode(u.mode)
	m := &o.IDMap
	if m.UID, err = isolation.ParseIDMap("--userns-uid-map", u.uids); err != nil {
		return err
	}
	if m.GID, err = isolation.ParseIDMap("--userns-gid-map", u.gids); err != nil {
		return err
	}
	if u.user != "" || u.group != "" {
		users, groups, err := userns.SubIDs(cmp.Or(u.user, u.group), cmp.Or(u.group, u.user))
		if err != nil {
			return fmt.Errorf("--userns-uid-map-user: %w", err)
		}
		// A map that is written out wins.
		if len(m.UID) == 0 {
			m.UID = fromZero(users)
		}
		if len(m.GID) == 0 {
			m.GID = fromZero(groups)
		}
	}
	if len(m.UID) == 0 {
		m.UID = m.GID
	}
	if len(m.GID) == 0 {
		m.GID = m.UID
	}
	switch {
	case m.IsZero():
		return nil
	case u.mode == "host":
		return fmt.Errorf("--userns host, and a map of ids: want one or the other: %w", define.ErrInvalid)
	case strings.HasPrefix(u.mode, "auto"):
		return fmt.Errorf("--userns %s, and a map of ids: want one or the other; auto:uidmapping= takes parts of one: %w", u.mode, define.ErrInvalid)
	}
	if err := m.Check(); err != nil {
		return fmt.Errorf("--userns-uid-map: %w", err)
	}
	return nil
}

func (u *usernsFlags) checkMode() error {
	options, auto := strings.CutPrefix(u.mode, "auto")
	switch {
	case u.mode == "", u.mode == "host", u.mode == "private", u.mode == "container":
		return nil
	case auto && (options == "" || options[0] == ':'):
		if _, err := builder.ParseAuto(strings.TrimPrefix(options, ":")); err != nil {
			return fmt.Errorf("--userns: %w", err)
		}
		return nil
	case path.IsAbs(u.mode), strings.HasPrefix(u.mode, "ns:"), strings.HasPrefix(u.mode, "container:"):
		return fmt.Errorf("--userns %s: no user namespace that exists is joined; give its map with --userns-uid-map and --userns-gid-map, as /proc/PID/uid_map and gid_map have it: %w", u.mode, define.ErrUnsupported)
	}
	return fmt.Errorf("--userns %q: want host, private or auto: %w", u.mode, define.ErrInvalid)
}

// fromZero maps the ids from 0 on to the ranges, one after the other.
func fromZero(ranges []userns.Range) (out []specs.LinuxIDMapping) {
	next := uint32(0)
	for _, r := range ranges {
		out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: r.Start, Size: r.Count})
		next += r.Count
	}
	return out
}
