// Package reaper ends what a step has left running where no pid namespace
// does that: a process that is the reaper of all its descendants
// (PR_SET_CHILD_SUBREAPER) finds and kills them.
package reaper
