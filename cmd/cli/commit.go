package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/manifest"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/cmd/internal/imagestore"
	"github.com/stratabuild/strata/imagebuildah"
)

func newCommitCommand(a *app) *cobra.Command {
	f := &commitFlags{}
	cmd := &cobra.Command{
		Use:   "commit [flags] container [image]",
		Short: "Make an image of a working container",
		Long: `Make an image of what a working container is now: its files, and the settings
that config has made. The container stays as it is, unless --rm removes it.

The image gets the name that is given (localhost/ and :latest are added where
they are missing), or none. A name with a transport in front writes it there
instead of the store: docker://, oci:, oci-archive:, docker-archive: or dir:.
Standard output gets the image's ID.`,
		Example: `  strata commit app registry.example/team/app:1
  strata commit --rm --squash app app
  id=$(strata commit -q app)
  strata commit app oci-archive:app.tar`,
		Args:              wantArgs(1, 2, "a container and at most one image name"),
		ValidArgsFunction: a.completeContainers(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := f.plan(a, cmd, args)
			if err != nil {
				return err
			}
			return runCommit(a, cmd, plan)
		},
	}
	f.add(cmd)
	return cmd
}

// commitPlan is what the flags of one commit come to.
type commitPlan struct {
	container string
	engine    builder.Options
	commit    builder.CommitOptions
	change    commitChange
	// destination is a name with a transport; "": the store.
	destination string
	// list is the full name of the list that the image is added to; "": none.
	list      string
	push      transport.PushOptions
	quiet, rm bool
	// formatGiven: a flag or variable says the format, else the container may.
	formatGiven bool
	files       struct{ iid, metadata resultFile }
}

func runCommit(a *app, cmd *cobra.Command, p *commitPlan) (err error) {
	ctx := cmd.Context()
	if err := a.enter(len(p.change.sboms) > 0); err != nil {
		return err
	}
	a.startDisplay(quietMode(p.quiet))
	p.engine.Listener = a.display
	engine, err := a.openEngine(ctx, p.engine)
	if err != nil {
		return err
	}
	c, err := engine.OpenContainer(ctx, p.container)
	if err != nil {
		return err
	}
	if format := c.Settings().Format; format != "" && !cmd.Flags().Changed("format") {
		p.commit.Format = format // that from --format said
	}
	closeContainer := c.Close
	defer func() { err = errors.Join(err, closeContainer()) }()
	if f := c.Settings().Format; f != "" && !p.formatGiven {
		p.commit.Format, p.push.Format = f, f
	}
	// The changes are the image's: nothing is saved.
	if err := p.change.configure(ctx, c, p.commit.Format); err != nil {
		return err
	}
	p.commit.Prepare = p.change.prepare
	there, err := p.imagesBefore(engine)
	if err != nil {
		return err
	}
	done, err := c.Commit(ctx, p.commit)
	if err != nil {
		return err
	}
	for _, field := range done.Lost {
		a.warn("left out, because the format " + string(p.commit.Format) + " cannot hold them: " + field)
	}
	result := &imagebuildah.Result{ImageID: done.ID, Digest: done.Digest, MediaType: done.MediaType, Size: done.Size, Names: done.Names}
	if p.destination != "" {
		d, err := engine.Transport().Push(ctx, done.ID, p.destination, p.push)
		if err == nil {
			result.Digest = d
		}
		if !slices.Contains(there, string(done.ID)) {
			// It was the way there.
			_, dropErr := imagestore.Remove(engine.Store(), imagestore.Target{ID: done.ID}, false)
			err = errors.Join(err, dropErr)
		}
		if err != nil {
			return err
		}
	}
	if p.list != "" {
		_, err := manifest.UpdateNamed(ctx, engine.Store(), p.list, func(l *manifest.List) error {
			_, err := l.Add(done.ID)
			return err
		})
		if err != nil {
			return fmt.Errorf("--manifest %s: %w", p.list, err)
		}
	}
	if p.rm {
		closeContainer = func() error { return nil }
		if err := c.Remove(ctx); err != nil {
			return err
		}
	}
	return p.report(a, result)
}

// imagesBefore are the IDs of the store's images when the new one is not to
// stay there.
func (p *commitPlan) imagesBefore(e *builder.Engine) ([]string, error) {
	if p.destination == "" {
		return nil, nil
	}
	images, err := e.Store().Raw().Images()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	ids := make([]string, len(images))
	for i := range images {
		ids[i] = images[i].ID
	}
	return ids, nil
}

func (p *commitPlan) report(a *app, r *imagebuildah.Result) error {
	a.closeDisplay()
	if err := p.files.iid.write([]byte(r.ImageID.WithAlgorithm())); err != nil {
		return err
	}
	if p.files.metadata.path != "" {
		data, err := json.Marshal(metadata(r))
		if err != nil {
			return err
		}
		if err := p.files.metadata.write(data); err != nil {
			return err
		}
	}
	a.println(string(r.ImageID))
	return nil
}
