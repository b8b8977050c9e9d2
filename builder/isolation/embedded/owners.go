package embedded

import (
	"errors"
	"fmt"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/builder/isolation/owners"
	"github.com/stratabuild/strata/define"
)

var errNoListener = errors.New("a seccomp filter around this process has a listener already, or the kernel gives none")

// remembering is the part of a plan that is about owners.
type remembering struct {
	*isolation.Owners
	told     isolation.Identity
	spec     *isolation.Spec
	bounding uint64
	root     int
	trees    []int // descriptors of the mounts that the step gets
	listener *owners.Listener
	asked    bool
}

// tell has the step's processes told who they are.
func (d *driver) tell(c *early.Config, s *isolation.Step) error {
	told := s.Spec.Told
	if told == nil || told.UID == 0 {
		return nil
	}
	if err := owners.Supported(); s.Owners == nil || err != nil {
		return fmt.Errorf("user %d, where one id is mapped and owners are not remembered: %w", told.UID, errors.Join(define.ErrUnsupported, err))
	}
	c.Effective = 0
	c.Flags |= early.NoRoot
	return nil
}

// remember has the step's filter ask about owners.
func (d *driver) remember(p *plan, c *early.Config, s *isolation.Step) (err error) {
	if s.Owners == nil {
		return nil
	}
	p.owners = &remembering{Owners: s.Owners, spec: s.Spec, bounding: c.Bounding, root: p.fds[early.RootFD]}
	if s.Spec.Told != nil {
		p.owners.told = *s.Spec.Told
	}
	if err := owners.Supported(); err != nil {
		p.owners.refuse(err)
		return nil
	}
	for i := range s.Spec.Mounts {
		m := &s.Spec.Mounts[i]
		tree := s.Spec.Trees[m.Destination]
		if tree == nil || !slices.Contains(s.Owners.Trees, tree) {
			continue
		}
		for j := range c.Mounts {
			if c.Mounts[j].Kind == early.MountTree && c.Mounts[j].Target == m.Destination {
				p.owners.trees = append(p.owners.trees, p.fds[c.Mounts[j].FD])
			}
		}
	}
	c.Asking, err = d.askingProgram(s.Spec.Linux.Seccomp, p.owners.told.UID != 0)
	return err
}

// askingKey is what a filter that asks depends on.
type askingKey struct {
	profile *specs.LinuxSeccomp
	user    bool // the step begins as another user than root
}

// askingProgram is program for a filter that asks.
func (d *driver) askingProgram(profile *specs.LinuxSeccomp, user bool) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := askingKey{profile, user}
	if b, ok := d.asking[key]; ok {
		return b, nil
	}
	b, err := seccomp.CompileAsking(profile, owners.Asked(user))
	if err == nil {
		d.asking[key] = b
	}
	return b, err
}

// listen answers what the step p asks, with the listener that its init sent.
func (r *remembering) listen(init int, fd *os.File) {
	r.asked = true
	var err error
	r.listener, err = owners.Start(fd, owners.Options{
		Init: init, Root: r.root, Trees: r.trees, Upper: r.Upper, Below: r.Below, Remembers: r.Remembers,
		UID: r.told.UID, GID: r.told.GID, Groups: r.told.Groups, KeepGroups: r.spec.KeepGroups || r.spec.Told == nil,
		Bounding: r.bounding, NoNewPrivileges: r.spec.Process.NoNewPrivileges,
	})
	if err != nil {
		// With the listener closed, the calls that would be asked about fail
		// (ENOSYS), those that look at files too.
		r.refuse(err)
	}
}

func (r *remembering) refuse(err error) {
	if r.Refused != nil {
		r.Refused(err)
		r.Refused = nil
	}
}

// close ends the answering, when the step has ended.
func (r *remembering) close(started bool) {
	switch {
	case r == nil:
	case r.listener != nil:
		if err := r.listener.Close(); err != nil {
			r.refuse(err)
		}
	case started && !r.asked:
		r.refuse(errNoListener)
	}
}
