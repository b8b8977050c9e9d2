// Package ui draws what libraries report as define.Event.
//
// A Display is one way to show a build: Terminal (a live region below the
// lines that are final), Plain (lines, for logs and CI), JSON (one event a
// line, for programs) and Quiet. All of them write to standard error:
// standard output belongs to results.
//
// Two rules hold for every display. Text that comes from elsewhere
// (Containerfiles, registries, archives) is shown with its control characters
// escaped and without the credentials of a URL; only the output of a RUN step
// passes as it is, and only on Plain. And memory is bounded whatever a step
// prints: the last TailLines lines of a running step are kept, each cut at
// MaxLine bytes.
package ui
