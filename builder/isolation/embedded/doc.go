// Package embedded runs steps with no other program than this one.
//
// A step's first process is this program executed again, from a read-only
// detached mount of its own file, in fresh pid, mount, ipc, uts and cgroup
// namespaces (and a network namespace when the step has no network). Package
// early, which runs before the rest of the program is initialised, takes its
// configuration from a socket, makes the container and executes the step's
// program in its own place. About 4 ms pass from Run to the step's first
// instruction.
//
// What keeps the host apart:
//
//   - The root and all bind mounts arrive as detached, private mounts; mount
//     points are resolved inside the root by descriptor; the host's mounts
//     are dropped before anything of the step runs.
//   - Device nodes of the root and of volumes cannot be opened (nodev), which
//     stands in for a device cgroup.
//   - /proc/1/exe of a starting step names a file on a read-only mount
//     (CVE-2019-5736).
//   - The step's processes are all in its pid namespace, whose first process
//     is the step's program: when it ends, the kernel kills the others before
//     Run returns. The first process is killed when the builder dies.
//
// The program must import this package's early package through this one in
// its main binary, and a test binary that runs steps does so by importing it.
// The kernel must be 5.12 or newer.
//
// Kernels before 6.15 cannot clone detached mounts: there Step.Root and the
// trees of the Spec, when they are detached mounts, are moved into the step
// and serve for one step only.
package embedded
