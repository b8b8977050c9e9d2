// Package cgroup holds a step to limits of memory, CPU time and processes,
// through a control group that is made for it (cgroups(7)).
//
//	g, err := cgroup.New(limits) // nil when there is no limit
//	defer g.Remove()
//	err = g.Add(pid)             // before the process does anything
//	...
//	if u := g.Usage(); u.OOMKills > 0 { ... }
//
// Each controller is used in the hierarchy that has it: version 1, version 2,
// or some in each. In version 2 a group whose controllers its children shall
// have may hold no process itself; where this process's own group does, the
// step's is made in the nearest group above that lets us.
//
// Where this process may make no group at all, as in a login session, systemd
// is asked over D-Bus for a transient scope that is delegated to us.
//
// A group is locked (flock(2)) by the process that made it for as long as
// that lives. Groups of ours that nobody has locked are what a killed process
// has left: New removes them.
package cgroup
