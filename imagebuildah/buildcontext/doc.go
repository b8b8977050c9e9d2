// Package buildcontext gives a build its context and its Containerfile.
//
// A context is a folder, a tar stream on standard input in any usual
// compression, a single Containerfile on standard input, an archive URL, or a
// git repository. Whatever it was, it ends as a copier.Root with an ignore
// matcher that follows Docker's rules exactly. Nothing of a context is
// followed out of it: not its files, not its ignore file (CVE-2022-4122), not
// its archive members.
//
//	c, err := buildcontext.Open(ctx, buildcontext.Options{Location: "."})
//	defer c.Close()
//	selection, err := c.Root().Select(ctx, copier.Select{Patterns: src, Ignore: c.Ignore()})
//
// Streams and repositories are unpacked into a folder of mode 0700 that Close
// removes. Repositories are fetched with the host's git, which sees none of
// the user's configuration, runs no hooks and no filters, and may use only
// the transports http, https, ssh and git (file for a URL that names a local
// repository). Credentials in URLs are used and never shown.
package buildcontext
