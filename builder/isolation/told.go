package isolation

// Identity is who a step's processes are.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
}

// Tell takes the ids out of o, where the user namespace maps one id, for
// Spec.Told: the step's processes have the one id, and are told these.
func (o *Options) Tell() *Identity {
	id := &Identity{o.UID, o.GID, o.Groups}
	o.UID, o.GID, o.Groups = 0, 0, nil
	return id
}
