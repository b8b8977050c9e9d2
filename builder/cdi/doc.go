// Package cdi reads specifications of the Container Device Interface and says
// what a step needs that uses a device: nodes, mounts, variables, groups.
//
// It follows version 1.1.0 of the specification (cncf-tags,
// container-device-interface, SPEC.md) and those before it. Files end in .json
// or .yaml; of two directories the later wins. What a specification asks for
// that strata does not do (hooks, which are programs of the host's, network
// devices, cache partitions, nodes that would have to be made) is an error of
// the device that asks for it, when it is used.
package cdi
