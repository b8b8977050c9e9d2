// Package define holds the types that every other package of strata shares:
// identifiers, platforms, policies, events and the short list of error kinds.
//
// It does no I/O and starts nothing. It imports the standard library and the
// OCI specification types only, so that anything may import it.
package define
