package imagebuildah

import (
	"context"
	"fmt"

	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/define"
)

// Labels of the images of stages, under the names that buildah gave them.
const (
	labelStageName = "io.buildah.stage.name"
	labelStageBase = "io.buildah.stage.base"
)

// saveStages records an image, without a name, of each stage that the target
// needed; they are not the ones that the target begins with, which have what
// flags say about the target alone.
func (b *build) saveStages(ctx context.Context) error {
	if !b.opts.SaveStages {
		return nil
	}
	for _, i := range b.graph.Needed {
		s := b.stages[i]
		if i == b.graph.Target || s.b != b {
			continue
		}
		if err := b.saveStage(ctx, s, i); err != nil {
			return fmt.Errorf("saving stage %s: %w", s.name(), err)
		}
	}
	return nil
}

func (b *build) saveStage(ctx context.Context, s *stage, i int) error {
	if err := s.materialize(ctx); err != nil {
		return err
	}
	c, err := s.c.Fork()
	if err != nil {
		return err
	}
	image := &stage{b: b, def: s.def, c: c}
	if b.opts.StageLabels {
		image.setLabel(labelStageName, s.name())
		image.setLabel(labelStageBase, b.graph.Bases[i])
	}
	b.stageImageLabels(image)
	if err := image.datePast(ctx); err != nil {
		return err
	}
	done, err := c.Commit(ctx, builder.CommitOptions{Format: b.opts.Format, Created: b.opts.fixedTime()})
	if err != nil {
		return err
	}
	define.Emit(b.engine.Listener(), define.Event{Kind: define.EventNote,
		Text: fmt.Sprintf("stage %s is image %s", s.name(), done.ID.Short())})
	return nil
}
