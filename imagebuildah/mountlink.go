package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
)

// link returns the text of the symbolic link that a mount with no-dereference
// shows; ok is false when the source is something else, which is mounted as
// without the option.
func (m *runMount) link(ctx context.Context) (text string, ok bool, err error) {
	if !m.NoDereference {
		return "", false, nil
	}
	root, err := m.origin.open(ctx)
	if err != nil {
		return "", false, err
	}
	return m.linkIn(root)
}

func (m *runMount) linkIn(root *copier.Root) (text string, ok bool, err error) {
	info, err := root.Stat(m.Source, false)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil // said where the source is opened
	}
	if err != nil || info.Mode.Type() != fs.ModeSymlink {
		return "", false, err
	}
	if m.origin.ignore != nil {
		name := strings.TrimPrefix(path.Join("/", m.Source), "/")
		out, _, err := m.origin.ignore.Excluded(name)
		if err == nil && out {
			err = fmt.Errorf("source %q is left out by the ignore file: %w", m.Source, define.ErrNotFound)
		}
		if err != nil {
			return "", false, err
		}
	}
	return info.Link, true, nil
}

// bindLink shows a symbolic link as itself: what it names is looked up in the
// step's root. done is false when the source is none.
func (o *mountOpener) bindLink(ctx context.Context, m *runMount, root *copier.Root) (done bool, err error) {
	text, ok, err := m.linkIn(root)
	if !ok || err != nil {
		return false, err
	}
	// A link of ours of the same text: the source's own could be changed by U.
	_, scratch, err := o.s.b.space.Dir(ctx)
	if err != nil {
		return false, err
	}
	tree, remove, err := runmount.Link(text, scratch, o.s.b.mountName())
	if err != nil {
		return false, err
	}
	o.closers = append(o.closers, remove)
	o.add(m, tree)
	return true, nil
}
