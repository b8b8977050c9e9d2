// Package buildcontext gives a build its context and its Containerfile.
//
// A context is a folder, a tar stream on standard input in any usual
// compression, a single Containerfile on standard input, an archive URL, or a
// git repository. Whatever it was, it ends as a copier.Root with an ignore
// matcher that follows Docker's rules exactly. Nothing of a context is
// followed out of it: not its files, not its ignore file (CVE-2022-4122), not
// its archive members.
package buildcontext
