package manifest

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/builder/image"
	"github.com/stratabuild/strata/builder/store"
	"github.com/stratabuild/strata/define"
	"go.podman.io/storage"
)

// Update reads the list, lets change change it and writes it, while no other
// strata process does. What takes long (pulls) is done before.
func Update(ctx context.Context, st *store.Store, id define.ImageID, change func(*List) error) error {
	unlock, err := st.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := Open(st, id)
	if err != nil {
		return err
	}
	return l.apply(change)
}

// UpdateNamed is Update for the list of a full name, which is made when
// nothing has the name. It returns the list's ID.
func UpdateNamed(ctx context.Context, st *store.Store, name string, change func(*List) error) (define.ImageID, error) {
	unlock, err := st.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	var l *List
	if have, err := st.Raw().Image(name); err == nil && slices.Contains(have.Names, name) {
		l, err = Open(st, define.ImageID(have.ID))
		if err != nil {
			return "", err
		}
	} else if l, err = Create(st, name); err != nil {
		return "", err
	}
	return l.ID, l.apply(change)
}

func (l *List) apply(change func(*List) error) error {
	if err := change(l); err != nil {
		return err
	}
	return l.save()
}

// save writes the places first: a list whose images are not noted is worse
// than a note without an entry.
func (l *List) save() error {
	data, where, err := l.encode()
	if err != nil {
		return err
	}
	if l.beside != nil {
		if err := image.SaveExtras(l.st, l.ID, l.beside); err != nil {
			return err
		}
	}
	raw := l.st.Raw()
	if err := raw.SetImageBigData(string(l.ID), image.InstancesKey, where, nil); err != nil {
		return fmt.Errorf("writing the list of images %s: %w", l.Label(), err)
	}
	sum := func(b []byte) (digest.Digest, error) { return digest.FromBytes(b), nil }
	if err := raw.SetImageBigData(string(l.ID), storage.ImageDigestBigDataKey, data, sum); err != nil {
		return fmt.Errorf("writing the list of images %s: %w", l.Label(), err)
	}
	return nil
}
