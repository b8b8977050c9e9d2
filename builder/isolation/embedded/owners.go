package embedded

import (
	"errors"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stratabuild/strata/builder/isolation"
	"github.com/stratabuild/strata/builder/isolation/embedded/early"
	"github.com/stratabuild/strata/builder/isolation/embedded/seccomp"
	"github.com/stratabuild/strata/builder/isolation/owners"
)

var errNoListener = errors.New("a seccomp filter around this process has a listener already, or the kernel gives none")

// remembering is the part of a plan that is about owners.
type remembering struct {
	*isolation.Owners
	root     int
	trees    []int // descriptors of the mounts that the step gets
	listener *owners.Listener
	asked    bool
}

// remember has the step's filter ask about owners.
func (d *driver) remember(p *plan, c *early.Config, s *isolation.Step) (err error) {
	if s.Owners == nil {
		return nil
	}
	p.owners = &remembering{Owners: s.Owners, root: p.fds[early.RootFD]}
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
	c.Asking, err = d.askingProgram(s.Spec.Linux.Seccomp)
	return err
}

// askingProgram is program for a filter that asks.
func (d *driver) askingProgram(profile *specs.LinuxSeccomp) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b, ok := d.asking[profile]; ok {
		return b, nil
	}
	b, err := seccomp.CompileAsking(profile, owners.Asked())
	if err == nil {
		d.asking[profile] = b
	}
	return b, err
}

// listen answers what the step p asks, with the listener that its init sent.
func (r *remembering) listen(init int, fd *os.File) {
	r.asked = true
	var err error
	r.listener, err = owners.Start(fd, owners.Options{
		Init: init, Root: r.root, Trees: r.trees, Upper: r.Upper, Below: r.Below, Remembers: r.Remembers,
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
