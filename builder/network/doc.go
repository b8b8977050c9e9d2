// Package network makes the network that the steps of a build share: a
// network namespace with access to the outside, made once and joined by each
// step, at no cost for a step.
//
// Open makes one as a Mode says:
//
//   - private, the usual: where the kernel forwards for this host anyway, a
//     pair of devices and masquerading ("bridge", as docker and podman call
//     what they do); elsewhere, and always without privileges, the user-mode
//     stack of package usernet, which changes nothing on the host.
//   - ns:PATH, container:PID: a namespace that exists.
//   - pasta, slirp4netns: those programs, where they are installed.
//
// host and none need no network and are not opened; isolation knows them.
//
// Invariants: what a network puts on the host (devices, a table of nftables)
// is removed by the kernel when the process ends, however it ends. Nobody
// else's tables, devices and settings are touched. The host's loopback
// addresses cannot be reached from a private network unless its Mode says so.
//
//	n, err := network.Open(ctx, network.Options{Mode: mode, Rootless: rootless})
//	defer n.Close()
//	spec.Joined[specs.NetworkNamespace] = n.Namespace()
package network
