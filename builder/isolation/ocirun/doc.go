// Package ocirun runs steps through an installed OCI runtime: crun, runc,
// youki, runsc or another with their command line.
//
//	d, err := ocirun.New(ocirun.Options{Runtime: "/usr/bin/crun"})
//	err = d.Run(ctx, step)
//
// A step becomes a bundle in a private directory. Its mounts are made on a
// thread with a mount namespace of its own, from which the runtime is
// started: the step's root (Step.Root) at rootfs, the step's files over it,
// and the sources of its volumes beside it, with their attributes already
// set, recursively. The host's mount namespace is never touched, and
// everything that was mounted goes when the thread does.
//
// The runtime stays in the foreground and passes on how the step ended, as
// status 128+n where a signal did; ExitError.Signal is then not set. Whether a
// status of 1 is the step's or says that there was no step, is told by the
// runtime's log. When this process is killed, the step lives on unless it is
// in a pid namespace that ends with us, as the worker's do.
//
// What differs from the embedded driver:
//
//   - runc and crun set HOME from the root's /etc/passwd when the step has
//     none. Give it one.
//   - runc changes the owner of the step's standard streams to the step's user.
//     Give it pipes.
//   - A program that the kernel refuses as a wrong format ends with status 1
//     there; this is recognised by looking at the program, and mapped to 126.
//   - A root whose /proc, /sys or /dev is a symbolic link is refused: runtimes
//     have followed it to the host.
//   - A step of runc's with CAP_MKNOD costs a device cgroup; crun has none.
//   - crun clears nodev from the root: device nodes of the image can be opened.
//   - The runtime writes its own complaint to the step's standard error too.
//
// No resource limits are asked for when the Spec has none: crun is then told
// to leave cgroups alone, and on hosts with both cgroup versions the runtime
// sees the second only, which crun insists on and which saves runc the move
// through every hierarchy of the first (15 ms).
package ocirun
