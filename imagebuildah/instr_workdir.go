package imagebuildah

import (
	"context"
	"path"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// workdir sets the working directory and makes it when the root lacks it, as
// the user's (Dockerfile reference: WORKDIR after USER).
func (s *stage) workdir(ctx context.Context, in *containerfile.Instruction, cmd *instructions.WorkdirCommand) error {
	dir, user := s.setWorkdir(cmd), s.c.Image.Config.User
	return s.layerStep(ctx, fsStep{
		in:        in,
		createdBy: "WORKDIR " + dir,
		keys: []func(context.Context) (*cache.Key, error){
			func(context.Context) (*cache.Key, error) {
				k := s.baseKey("WORKDIR")
				k.Add("directory", dir)
				if user != "" {
					k.Add("user", user)
				}
				return k, nil
			},
		},
		exec: func(ctx context.Context, _ *define.Step) (bool, error) {
			if err := s.materialize(ctx); err != nil {
				return false, err
			}
			exists, owner := false, copier.Owner{}
			err := s.c.View(ctx, func(root *copier.Root) error {
				info, err := root.Stat(dir, true)
				if exists = err == nil && info.Mode.IsDir(); exists || user == "" {
					return nil
				}
				owner, err = root.Owner(user)
				return err
			})
			if err != nil || exists {
				return false, err
			}
			return true, s.c.Mkdir(ctx, dir, owner)
		},
	})
}

// setWorkdir changes the configuration.
func (s *stage) setWorkdir(cmd *instructions.WorkdirCommand) string {
	dir := cmd.Path
	if !path.IsAbs(dir) {
		dir = path.Join("/", s.c.Image.Config.WorkingDir, dir)
	}
	s.c.Image.Config.WorkingDir = path.Clean(dir)
	return s.c.Image.Config.WorkingDir
}
