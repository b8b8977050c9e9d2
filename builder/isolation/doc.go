// Package isolation runs one step's process in a container.
//
// What a step's container is, is said by a runtime-spec Spec whatever runs
// it: NewSpec makes it from Options, pure data to data. A Driver then runs
// it: embedded (this binary's own early init in fresh namespaces), ocirun
// (crun, runc or another OCI runtime) and chroot (hosts without namespaces).
// All drivers pass the suite of isolationtest.
//
// A step sees its root, /proc, /sys, /dev, /etc/resolv.conf and /etc/hosts of
// its own, no descriptor but its standard three, an environment built from
// nothing, no inheritable capability, and the seccomp profile. Nothing that
// it starts outlives it. No mount point or file that was made for it is left
// in the layer.
package isolation
