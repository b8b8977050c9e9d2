package imagebuildah

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/define"
)

// planSecret fills in the defaults of a secret mount.
func (m *runMount) planSecret() error {
	if m.Source != "" {
		m.CacheID, m.Source = m.Source, ""
	}
	if m.CacheID == "" {
		m.CacheID = path.Base(m.Target)
	}
	if m.Env != nil && *m.Env == "" {
		m.Env = &m.CacheID
	}
	if m.Env != nil && strings.ContainsAny(*m.Env, "=\x00") {
		return fmt.Errorf("env=%s: want the name of a variable: %w", *m.Env, define.ErrInvalid)
	}
	if m.Target == "" && m.Env == nil {
		m.Target = "/run/secrets/" + path.Base(m.CacheID)
	}
	return nil
}

// planSSH fills in the defaults of an agent's mount, the n-th of the step.
func (m *runMount) planSSH(n int) {
	if m.Source != "" {
		m.CacheID, m.Source = m.Source, ""
	}
	if m.CacheID == "" {
		m.CacheID = "default"
	}
	if m.Target == "" {
		m.Target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", n)
	}
}

// secret gives the step a secret as a file, a variable or both. One that the
// build does not have is left out, unless it is required.
func (o *mountOpener) secret(m *runMount) error {
	value, ok, err := o.s.b.secret(m.CacheID)
	if err != nil {
		return err
	}
	if !ok {
		if m.Required {
			return fmt.Errorf("secret %q is required: give it with --secret id=%s,src=FILE: %w", m.CacheID, m.CacheID, define.ErrNotFound)
		}
		return nil
	}
	if m.Env != nil {
		if strings.ContainsRune(string(value), 0) {
			return fmt.Errorf("secret %q holds a zero byte, which no variable can: mount it as a file: %w", m.CacheID, define.ErrInvalid)
		}
		o.run.Env = append(o.run.Env[:len(o.run.Env):len(o.run.Env)], *m.Env+"="+string(value))
	}
	if m.Target == "" {
		return nil
	}
	tree, err := runmount.Secret(value, o.attr(m, 0o400))
	if err != nil {
		return err
	}
	o.add(m, tree)
	return nil
}

// ssh gives the step a socket that leads to an agent. One that the build does
// not have is left out, unless it is required.
func (o *mountOpener) ssh(ctx context.Context, m *runMount) error {
	a, err := o.s.b.agent(m.CacheID)
	if err != nil {
		return err
	}
	if a == nil {
		if m.Required {
			return fmt.Errorf("ssh agent %q is required: give it with --ssh %s: %w", m.CacheID, m.CacheID, define.ErrNotFound)
		}
		return nil
	}
	_, scratch, err := o.s.b.space.Dir(ctx)
	if err != nil {
		return err
	}
	socket, err := a.Listen(scratch, o.s.b.mountName(), o.attr(m, 0o600))
	if err != nil {
		return err
	}
	o.closers = append(o.closers, socket.Close)
	o.volume(m, socket.Tree)
	const name = "SSH_AUTH_SOCK="
	for _, kv := range append(o.run.Env, o.s.c.Image.Config.Env...) {
		if strings.HasPrefix(kv, name) {
			return nil
		}
	}
	o.run.Env = append(o.run.Env[:len(o.run.Env):len(o.run.Env)], name+m.target)
	return nil
}
