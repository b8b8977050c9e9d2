// Package doctor finds out what a host offers to builds, and what strata will
// use of it.
//
//	report := doctor.Examine(ctx, doctor.Options{Namespaces: info})
//	for _, f := range report.Host { ... }
//
// Things are tried rather than looked up: namespaces are made, an overlay is
// mounted, extents are shared. All that is made for it is gone when Examine
// returns. It works without any rights, writes to the store's file system
// only where that is allowed, reads no secret (of files with credentials
// only the names of registries), and asks no other host anything.
//
// A report is also a document: the keys of its JSON form and the ids of its
// findings are only ever added to.
package doctor
