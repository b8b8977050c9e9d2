package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/define"
)

type rmiFlags struct{ all, force, prune bool }

func newRmiCommand(a *app) *cobra.Command {
	var flags rmiFlags
	cmd := &cobra.Command{
		Use:   "rmi [flags] image...",
		Short: "Remove images",
		Long: `Remove images from the store. An image that is named by one of several names
loses that name only. Images that containers use, and images that are named by
ID and have several names, are removed with --force only. A list of images goes
without its images; those that have no name are then what prune removes.

When some of several images cannot be removed, the others are, and the exit
status is 125.`,
		Example: `  strata rmi hello
  strata rmi -f 1f3c9a2b4d5e
  strata rmi --prune`,
		Args: func(cmd *cobra.Command, args []string) error {
			if flags.all && flags.prune || (flags.all || flags.prune) && len(args) > 0 {
				return fmt.Errorf("rmi: want images, --all or --prune, one of them: %w", define.ErrInvalid)
			}
			if flags.all || flags.prune {
				return nil
			}
			return wantArgs(1, -1, "images, --all or --prune")(cmd, args)
		},
		ValidArgsFunction: a.completeImages(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := a.openStore(cmd.Context())
			if err != nil {
				return err
			}
			return runRmi(a, engine, flags, args)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&flags.all, "all", "a", false, "remove all images that no container uses")
	fs.BoolVarP(&flags.force, "force", "f", false, "remove images with all their names, and the containers that use them")
	fs.BoolVarP(&flags.prune, "prune", "p", false, "remove the images that have no name and that no container uses")
	return cmd
}

func runRmi(a *app, e *builder.Engine, flags rmiFlags, args []string) error {
	var targets []imagestore.Target
	var failed []error
	if flags.all || flags.prune {
		images, err := imagestore.List(e.Store())
		if err != nil {
			return err
		}
		for _, i := range images {
			if i.ReadOnly || flags.prune && !i.Dangling() {
				continue
			}
			t := imagestore.Target{ID: i.ImageID()}
			if !flags.force && usedByContainer(e, t) {
				continue // it is none of those that were meant
			}
			targets = append(targets, t)
		}
	}
	for _, name := range args {
		local, err := e.Transport().FindEntry(name)
		if err != nil {
			if flags.force && errors.Is(err, define.ErrNotFound) {
				continue // what --force is to remove is not there
			}
			failed = append(failed, err)
			continue
		}
		targets = append(targets, imagestore.Target{ID: local.ID, Name: local.Name})
	}
	for _, t := range targets {
		// All names go with --all: nothing else could be meant.
		force := flags.force || flags.all && !usedByContainer(e, t)
		removed, err := imagestore.Remove(e.Store(), t, force)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		a.printRemoved(removed)
	}
	return errors.Join(failed...)
}

// usedByContainer errs on the side of yes: then nothing is forced.
func usedByContainer(e *builder.Engine, t imagestore.Target) bool {
	used, err := imagestore.InUse(e.Store(), t.ID)
	return err != nil || used
}

func (a *app) printRemoved(r imagestore.Removed) {
	for _, n := range r.Untagged {
		a.println("untagged: " + n)
	}
	for _, id := range r.Deleted {
		a.println(string(id))
	}
}
