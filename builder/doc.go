// Package builder is the working container: the core that both Containerfile
// builds and the scriptable commands drive.
//
// An Engine holds what a process needs once: the store, the transports, the
// cache and the isolation driver. A Container is an image under change: a
// configuration, a chain of layers, and, while something is being changed, a
// writable root on top of it. Run and Add change the root, the fields of
// Container.Image are changed directly, Seal turns the changes into a layer,
// and Commit records an image.
//
//	e, err := builder.Open(ctx, builder.Options{})
//	c, err := e.From(ctx, builder.FromOptions{Image: "busybox"})
//	err = c.Run(ctx, builder.Run{Args: []string{"touch", "/hello"}})
//	img, err := c.Commit(ctx, builder.CommitOptions{Names: []string{"localhost/hello:latest"}})
//
// Invariants: a Container that is closed without Commit leaves nothing in the
// store; Commit records the image last and in one step; nothing is mounted in
// the host's mount namespace.
package builder
