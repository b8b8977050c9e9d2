package imagebuildah

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/stratabuild/strata/builder/runmount"
	"github.com/stratabuild/strata/define"
)

// Secret is what RUN --mount=type=secret can show to a step. It reaches
// neither layers nor keys, histories or logs.
type Secret struct {
	ID string
	// File is a path of the host, read when a step first wants it; with "",
	// Value is the secret.
	File  string
	Value []byte
}

// MaxSecret is the largest secret, in bytes (BuildKit has the same limit).
const MaxSecret = 500 << 10

// SSH is what RUN --mount=type=ssh can show to a step.
type SSH struct {
	ID string
	// Paths is one agent's socket, or private keys.
	Paths []string
}

// private holds the secrets and agents of a build, opened when a step first
// wants them.
type private struct {
	mu      sync.Mutex
	secrets map[string][]byte
	agents  map[string]*runmount.Agent
}

// checkPrivate refuses what could be meant in two ways.
func checkPrivate(o *Options) error {
	seen := map[string]bool{}
	for _, s := range o.Secrets {
		if s.ID == "" || seen[s.ID] {
			return fmt.Errorf("secret %q: the id is empty or given twice: %w", s.ID, define.ErrInvalid)
		}
		seen[s.ID] = true
	}
	seen = map[string]bool{}
	for _, s := range o.SSH {
		if s.ID == "" || seen[s.ID] {
			return fmt.Errorf("ssh agent %q: the id is empty or given twice: %w", s.ID, define.ErrInvalid)
		}
		seen[s.ID] = true
	}
	return nil
}

// secret gives a secret's content; ok is false when the build has none of the
// id.
func (b *build) secret(id string) (value []byte, ok bool, err error) {
	return b.private.secret(b.opts.Secrets, id)
}

func (p *private) secret(list []Secret, id string) (value []byte, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.secrets[id]; ok {
		return v, true, nil
	}
	for _, s := range list {
		if s.ID != id {
			continue
		}
		v := s.Value
		if s.File != "" {
			if v, err = readSecret(s.File); err != nil {
				return nil, false, fmt.Errorf("secret %q: %w", id, err)
			}
		}
		if len(v) > MaxSecret {
			return nil, false, fmt.Errorf("secret %q: larger than %d bytes: %w", id, MaxSecret, define.ErrInvalid)
		}
		if p.secrets == nil {
			p.secrets = map[string][]byte{}
		}
		p.secrets[id] = v
		return v, true, nil
	}
	return nil, false, nil
}

// readSecret reads a file or a pipe, at most one byte more than is allowed.
func readSecret(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, MaxSecret+1))
}

// agent gives an SSH agent; nil when the build has none of the id.
func (b *build) agent(id string) (*runmount.Agent, error) {
	b.private.mu.Lock()
	defer b.private.mu.Unlock()
	if a, ok := b.private.agents[id]; ok {
		return a, nil
	}
	for _, s := range b.opts.SSH {
		if s.ID != id {
			continue
		}
		a, err := runmount.OpenAgent(s.Paths)
		if err != nil {
			return nil, fmt.Errorf("ssh agent %q: %w", id, err)
		}
		if b.private.agents == nil {
			b.private.agents = map[string]*runmount.Agent{}
		}
		b.private.agents[id] = a
		return a, nil
	}
	return nil, nil
}
