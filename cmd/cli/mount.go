package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
)

// mounted is a mounted container in JSON, with buildah's keys.
type mounted struct {
	Container  string `json:"container"`
	MountPoint string `json:"mountPoint"`
}

func newMountCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "mount [flags] [container...]",
		Short: "Make the files of working containers visible",
		Long: `Make the files of working containers visible in the file system, and print where:
for one container its path, for several lines with a name and a path. What is
changed there is changed in the container. Without arguments the containers that
are mounted are listed.

Users other than root do this inside of strata unshare, where the mount can be
seen; a mount ends with that.`,
		Example: `  dir=$(strata mount app)
  strata unshare sh -c 'cp config "$(strata mount app)/etc/"; strata umount app'`,
		ValidArgsFunction: a.completeContainers(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			var list []mounted
			var failed []error
			if len(args) == 0 {
				list, err = mountedContainers(cmd.Context(), engine)
				failed = append(failed, err)
			} else if err := a.checkMount(engine, cmd.Name()); err != nil {
				return err
			}
			for _, name := range args {
				at, err := mountContainer(cmd.Context(), engine, name)
				if err != nil {
					failed = append(failed, err)
					continue
				}
				list = append(list, mounted{name, at})
			}
			return errors.Join(a.printMounted(list, asJSON, len(args) == 1), errors.Join(failed...))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Bool("notruncate", true, "accepted for buildah's sake, without effect: paths are never shortened")
	_ = cmd.Flags().MarkHidden("notruncate")
	return cmd
}

func (a *app) printMounted(list []mounted, asJSON, one bool) error {
	if asJSON {
		if list == nil {
			list = []mounted{}
		}
		return a.printJSON(list)
	}
	for _, m := range list {
		if one {
			a.println(m.MountPoint)
		} else {
			a.println(m.Container, m.MountPoint)
		}
	}
	return nil
}

// checkMount refuses mounts that nobody else would see: those in the mount
// namespace of a worker, which ends with it.
func (a *app) checkMount(e *builder.Engine, what string) error {
	if !a.namespaces.Worker || e.Store().Raw().GraphDriverName() == "vfs" {
		return nil
	}
	return fmt.Errorf("%s: no other process would see what is mounted here: use it inside of a shell or script that strata unshare starts: %w",
		what, define.ErrUnsupported)
}

func mountContainer(ctx context.Context, e *builder.Engine, name string) (string, error) {
	c, err := e.OpenContainer(ctx, name)
	if err != nil {
		return "", err
	}
	at, err := c.Mount(ctx)
	return at, errors.Join(err, c.Close())
}

// mountedContainers are those that are mounted in this mount namespace.
func mountedContainers(ctx context.Context, e *builder.Engine) ([]mounted, error) {
	infos, err := e.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var list []mounted
	for _, i := range infos {
		if !i.Ours {
			continue
		}
		if at := e.MountPoint(i); at != "" {
			list = append(list, mounted{i.Name, at})
		}
	}
	return list, nil
}
