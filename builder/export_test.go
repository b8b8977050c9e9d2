package builder

import "context"

// InterruptSwap does a swap up to the worst moment: the container is deleted
// and not made again.
func InterruptSwap(ctx context.Context, c *Container) error {
	infos, err := chain(ctx, c.top)
	if err != nil {
		return err
	}
	if c.stored.standIn, err = c.recordStandIn(infos[len(infos)-1].ID, encodedLayers(infos)); err != nil {
		return err
	}
	c.stored.parent = c.top
	st, err := c.state(ctx)
	if err != nil {
		return err
	}
	p := &pendingSwap{ID: c.stored.id, Name: c.stored.name, Image: c.stored.standIn, State: *st}
	if err := c.engine.noteSwap(p); err != nil {
		return err
	}
	return c.engine.store.Raw().DeleteContainer(p.ID)
}

// DecodeState reads a state file.
func DecodeState(b []byte) error {
	_, err := decodeState("c", b)
	return err
}
