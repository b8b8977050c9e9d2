// Package cgroup holds a step to limits of memory, CPU time and processes,
// through a control group that is made for it (cgroups(7)).
package cgroup
