// Package testworker runs a package's tests in what the strata command works
// in: a process with mount and PID namespaces of its own and, for an
// unprivileged user, a user namespace, in which a store can be used.
package testworker
