package containerfile

import "github.com/moby/buildkit/frontend/dockerfile/instructions"

// Inherited bounds what stages take over from the stages that they begin with:
// each has the variables, labels and history of its base, so that a chain of
// thousands of short stages would hold their number squared of them.
type Inherited struct {
	sizes map[int]int // by stage
	total int
}

// Add counts a stage that begins with an earlier one that was added, or, with
// base -1, with an image. The error names its FROM when it is one too many.
func (h *Inherited) Add(s *Stage, base int) error {
	size := h.sizes[base]
	if h.total += size; h.total > MaxInherited {
		return s.From.Errorf("the stages up to here take over more than %d instructions and variables from the stages that they begin with; begin with an image, or use fewer stages", MaxInherited)
	}
	for _, ins := range s.Instructions {
		size++
		switch c := ins.Command.(type) {
		case *instructions.EnvCommand:
			size += len(c.Env)
		case *instructions.LabelCommand:
			size += len(c.Labels)
		case *instructions.ArgCommand:
			size += len(c.Args)
		case *instructions.ExposeCommand:
			size += len(c.Ports)
		case *instructions.VolumeCommand:
			size += len(c.Volumes)
		}
	}
	if h.sizes == nil {
		h.sizes = map[int]int{}
	}
	h.sizes[s.Index] = size
	return nil
}
