// Package chroot runs steps where the host forbids namespaces: in a change of
// root, and in little else.
//
//	d, err := chroot.New(chroot.Options{})
//	err = d.Run(ctx, step)
//
// Two processes of this program's are between the caller and the step. The
// monitor starts the init, is the reaper of whatever the step starts
// (PR_SET_CHILD_SUBREAPER), ends all of it, and puts the root back in order;
// it does so too when the caller dies. The init sets up and becomes the
// step's program. Both are recognised in this package's init function, so
// that nothing has to be hooked up by the program that imports it: by name
// (argv[0]) and by what descriptor 3 is.
//
// # What a step has
//
// Where mounts can be made (CAP_SYS_ADMIN), in a mount namespace of its own
// that is then pivoted into: the root without device nodes; /dev, /dev/pts
// and /dev/shm of its own; /proc without the processes that it could not
// trace, masked as asked; /sys read-only; the step's files over the root's;
// volumes. Mounts of the kernel's that the host refuses are left out;
// volumes that cannot be mounted are an error.
//
// Where they cannot be made, or lack attributes (before Linux 5.12), the root
// is borrowed: /etc/resolv.conf and its kin are put in the place of the root's
// own and device nodes are made in /dev if the kernel lets us; afterwards
// everything is put back, the original inodes under their names, and the times
// of the directories too. Without
// CAP_MKNOD there are no devices. There is no /proc and no /sys. A root that
// others use meanwhile sees what is borrowed. CAP_SYS_CHROOT is taken from the
// step, since with it a chroot(2) is no confinement at all.
//
// Always: an environment of its own, descriptors 0 to 2 only, no controlling
// terminal unless asked for, resource limits, user, groups, bounding set, no
// inheritable or ambient capability. The seccomp filter is loaded where that
// is allowed: with CAP_SYS_ADMIN, or when the step asks for
// no_new_privs; otherwise only the filters that the host has put on us apply.
//
// # What a step is not kept from
//
//   - The pid namespace is shared: a step sees, signals and traces processes
//     of the same user that have no capability which it lacks. A hostile
//     step that runs as root can kill the monitor (what it started is then
//     ended through its cgroup, where one could be made, or by its parent
//     death signal, its first process only; a borrowed root stays as it is).
//   - IPC objects, the hostname and the cgroup are the host's. The step's
//     hostname is in its /etc/hosts only.
//   - No network of its own: NetworkNone is an error unless the kernel gives
//     a network namespace.
//   - Without mounts, device nodes of the image's work.
//
// Use it for trusted Containerfiles, inside something that confines.
package chroot
