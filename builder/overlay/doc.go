// Package overlay makes overlay mounts that nobody else can see.
//
// A mount is detached: it is made with fsopen(2) and fsmount(2) and exists as
// a descriptor only, until somebody moves it into a mount namespace of their
// own (move_mount(2)). Nothing appears in the host's mount namespace, and
// closing the last descriptor unmounts. Directories are given as descriptors
// (O_PATH is enough), so that neither their names nor the number of layers
// matter, and so that they may be renamed at any time.
//
// Kernels older than 6.8 do not take lower directories one by one; there the
// mount is made with mount(2) on a thread with a mount namespace of its own
// and a detached copy of it is kept. Linux 5.2 is the oldest that works.
//
// The package knows neither layers nor the store: builder/layer uses it.
// A Scratch is the pair of directories that a writable mount needs:
//
//	s, err := overlay.NewScratch(dir, "1", overlay.Attr{Mode: 0o555})
//	root, err := overlay.Mount(overlay.Options{Lowers: lowers, Upper: s.Upper, Work: s.Work})
//	... // use root, then
//	root.Close() // unmounts
//	s.RemoveWork() // Upper now holds the changes
package overlay
