package imagebuildah

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/stratabuild/strata/builder"
	"github.com/stratabuild/strata/builder/cache"
	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/copier"
	"github.com/stratabuild/strata/define"
	"github.com/stratabuild/strata/imagebuildah/containerfile"
)

// runMount is one --mount of a RUN, with its defaults filled in.
type runMount struct {
	containerfile.Mount
	target string // absolute
	origin *origin
	picked *copier.Selection // what a mount of the context shows
	mapped bool              // the tree shows its owners through the map of ids
}

// planMounts checks the mounts and finds what they are taken from; nothing is
// opened yet. The caller closes them.
func (s *stage) planMounts(ctx context.Context, mounts []containerfile.Mount) ([]*runMount, error) {
	var list []*runMount
	agents := 0
	for _, parsed := range mounts {
		m := &runMount{Mount: parsed}
		var err error
		switch m.Type {
		case instructions.MountTypeSecret:
			err = m.planSecret()
		case instructions.MountTypeSSH:
			m.planSSH(agents)
			agents++
		}
		if err == nil {
			err = s.planMount(ctx, m)
		}
		list = append(list, m)
		if err != nil {
			closeOrigins(list)
			return nil, fmt.Errorf("--mount=type=%s: %w", m.Type, err)
		}
	}
	return list, nil
}

func (s *stage) planMount(ctx context.Context, m *runMount) (err error) {
	m.target = path.Join("/", s.c.Image.Config.WorkingDir, m.Target)
	if path.IsAbs(m.Target) {
		m.target = path.Clean(m.Target)
	}
	if m.Target == "" && m.Env != nil && m.Type == instructions.MountTypeSecret {
		m.target = "variable " + *m.Env
		return nil
	}
	switch {
	case strings.ContainsRune(m.Target+m.Source+m.CacheID, 0):
		return fmt.Errorf("a value holds a zero byte: %w", define.ErrInvalid)
	case m.Target == "":
		return fmt.Errorf("the target is missing; add target=/path: %w", define.ErrInvalid)
	case m.target == "/":
		return fmt.Errorf("target=%s: the root cannot be covered; name a directory below it: %w", m.Target, define.ErrInvalid)
	}
	switch m.Type {
	case instructions.MountTypeTmpfs, instructions.MountTypeSecret, instructions.MountTypeSSH:
		return nil
	case instructions.MountTypeCache:
		if m.CacheID == "" {
			m.CacheID = m.target
		}
		if ns := s.b.opts.BuildArgs["BUILDKIT_CACHE_MOUNT_NS"]; ns != "" {
			m.CacheID = ns + "/" + m.CacheID
		}
		if m.From == "" {
			return nil
		}
	case instructions.MountTypeBind:
	default:
		return fmt.Errorf("not in this version of strata: %w", define.ErrUnsupported)
	}
	m.origin, err = s.openOrigin(ctx, m.From)
	return err
}

func (p *runPlan) closeMounts() { closeOrigins(p.mounts) }

func closeOrigins(list []*runMount) {
	for _, m := range list {
		if m.origin != nil {
			_ = m.origin.close() // views of what is read only
		}
	}
}

// pattern is the mount's source for Root.Select, which reads wildcards.
func (m *runMount) pattern() string {
	return Literal(path.Join("/", m.Source))
}

// pick selects what a mount of the context shows, once: the files that the
// ignore file leaves in.
func (m *runMount) pick(ctx context.Context) (*copier.Selection, error) {
	if m.picked != nil {
		return m.picked, nil
	}
	root, err := m.origin.open(ctx)
	if err != nil {
		return nil, err
	}
	m.picked, err = root.Select(ctx, copier.Select{Patterns: []string{m.pattern()}, Ignore: m.origin.ignore})
	return m.picked, err
}

// mountParts adds what counts of a mount: its options, and what it shows when
// that is an input. Of a secret, a key or a cache the content never counts.
func (s *stage) mountParts(ctx context.Context, k *cache.Key, m *runMount) error {
	name := "--mount " + m.target
	k.Add(name, m.options())
	if m.origin == nil {
		return nil
	}
	base, files, err := s.mountBase(ctx, m)
	if err != nil {
		return err
	}
	if base != "" {
		k.Add(name+" from", base)
	}
	if files != nil {
		k.AddFiles(name+" file ", files)
	}
	return nil
}

// mountBase tells what the mount's source is: the layer it lies in, the text
// of a link that is mounted itself, or the digests of the context's files.
func (s *stage) mountBase(ctx context.Context, m *runMount) (string, *copier.Digests, error) {
	if m.origin.quick != nil {
		id, err := m.origin.quick(ctx)
		return "layer " + string(id), nil, err
	}
	if link, ok, err := m.link(ctx); err != nil || ok {
		return "link " + link, nil, err
	}
	sel, err := m.pick(ctx)
	if err != nil {
		return "", nil, err
	}
	files, err := sel.Digests(ctx, copier.DigestOptions{Index: m.origin.index})
	return "", files, err
}

// options spells the mount's options in one way.
func (m *runMount) options() string {
	list := []string{"type=" + string(m.Type)}
	add := func(name, value string) {
		if value != "" {
			list = append(list, name+"="+strconv.Quote(value))
		}
	}
	number := func(name string, v *uint64, base int) {
		if v != nil {
			add(name, strconv.FormatUint(*v, base))
		}
	}
	add("id", m.CacheID)
	if m.Source != "" {
		add("source", path.Join("/", m.Source))
	}
	add("readonly", strconv.FormatBool(m.ReadOnly))
	if m.SizeLimit != 0 {
		add("size", strconv.FormatInt(m.SizeLimit, 10))
	}
	add("sharing", string(m.CacheSharing))
	number("mode", m.Mode, 8)
	number("uid", m.UID, 10)
	number("gid", m.GID, 10)
	if m.Required {
		add("required", "true")
	}
	if m.Env != nil {
		list = append(list, "env="+strconv.Quote(*m.Env))
	}
	return strings.Join(m.ownOptions(list), ",")
}

// ownOptions adds what a step can notice of buildah's options. Relabelling is
// not: a step keeps strata's own label.
func (m *runMount) ownOptions(list []string) []string {
	for _, o := range []struct {
		name string
		on   bool
	}{
		{"bind-nonrecursive", m.NonRecursive}, {"U", m.Chown}, {"nosuid", m.NoSUID}, {"noexec", m.NoExec},
		{"no-dereference", m.NoDereference}, {"tmpcopyup", m.CopyUp},
	} {
		if o.on {
			list = append(list, o.name)
		}
	}
	if m.Propagation != "" {
		list = append(list, "bind-propagation="+m.Propagation)
	}
	if m.TmpfsMode != nil {
		list = append(list, "tmpfs-mode="+strconv.FormatUint(uint64(*m.TmpfsMode), 8))
	}
	return list
}

// attr is the mode and owner that the options give, of what is made for the
// step.
func (o *mountOpener) attr(m *runMount, mode uint64) runmount.FileAttr {
	a := runmount.FileAttr{Mode: uint32(mode), SingleID: o.s.b.engine.SingleID()}
	if m.Mode != nil {
		a.Mode = uint32(*m.Mode)
	}
	if m.UID != nil {
		a.UID = int(*m.UID)
	}
	if m.GID != nil {
		a.GID = int(*m.GID)
	}
	return a
}

// withMounts opens the mounts for the time of run.
func (s *stage) withMounts(ctx context.Context, p *runPlan, step *define.Step, r *builder.Run, run func() error) error {
	if len(p.mounts) == 0 {
		return run()
	}
	o := &mountOpener{s: s, step: step, run: r}
	err := o.open(ctx, p.mounts)
	if err == nil {
		err = run()
	}
	return errors.Join(err, o.close())
}

// regularOrDir refuses sources that are neither.
func regularOrDir(source string, mode fs.FileMode) error {
	if mode.IsRegular() || mode.IsDir() {
		return nil
	}
	return fmt.Errorf("source %q is neither a file nor a directory: %w", source, define.ErrInvalid)
}
