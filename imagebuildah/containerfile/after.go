package containerfile

import (
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// FROM --after=STAGE is buildah's: the stage waits for an earlier one whose
// files it does not name, for one example because its base is an archive that
// the other writes outside of its root. Of several the last counts.

const afterFlag = "--after="

// withoutAfter returns the node as BuildKit's parser takes it.
func withoutAfter(node *parser.Node) *parser.Node {
	if node == nil || !strings.EqualFold(node.Value, "FROM") || !slices.ContainsFunc(node.Flags, isAfter) {
		return node
	}
	n := *node
	n.Flags = slices.DeleteFunc(slices.Clone(node.Flags), isAfter)
	return &n
}

func isAfter(flag string) bool { return strings.HasPrefix(flag, afterFlag) }

// after is the value of the last --after, "" without one.
func after(node *parser.Node) string {
	value := ""
	for _, f := range node.Flags {
		if isAfter(f) {
			value = strings.TrimPrefix(f, afterFlag)
		}
	}
	return value
}

// checkAfter refuses what is no earlier stage; f has those up to this one.
func (f *File) checkAfter(s *Stage) error {
	if !slices.ContainsFunc(s.From.node.Flags, isAfter) {
		return nil
	}
	if _, ok := f.StageByName(s.After, s.Index); ok {
		return nil
	}
	var names []string
	for i := range s.Index {
		names = append(names, f.Stages[i].Name)
	}
	return s.From.Errorf("--after=%s is no earlier stage%s", quoteWord(s.After), orNearest(s.After, names))
}
