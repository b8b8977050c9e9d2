// Package userns gives the program the namespaces that it works in.
//
//	info, err := userns.Enter(userns.Options{PIDNamespace: true}) // early in main
//	if err != nil { ... }
//
// Enter splits the program in two. The front process, which the user started,
// starts the same program again with the same arguments as its worker, passes
// signals on, waits, and exits with the worker's status: for it, Enter does
// not return unless no worker can be started. For the worker, Enter returns
// and the program goes on.
//
//   - Root with CAP_SYS_ADMIN: with PIDNamespace the worker is process 1 of a
//     new pid namespace with a mount namespace of its own, so that killing the
//     front process (kill -9) kills everything, steps included, and leaves no
//     mount. Without it there is no worker; Enter returns at once.
//   - Anybody else: the worker also gets a user namespace. Its ids are the
//     user's own as 0 and the ranges of /etc/subuid and /etc/subgid from 1
//     on, written by newuidmap and newgidmap; where that does not work, the
//     user's own id only.
//   - A process that is root in a user namespace already, or in a container:
//     as root where it has CAP_SYS_ADMIN; else in one more user namespace;
//     else, where namespaces are forbidden altogether, without any.
//
// What was used in the place of something better is said by Info.Notes.
//
// The worker has the front's working directory, environment (HOME kept),
// descriptors, process group and terminal. In a user namespace it also has
// _CONTAINERS_USERNS_CONFIGURED, _CONTAINERS_ROOTLESS_UID and _GID, which
// containers/storage looks at.
//
// # Signals
//
// SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 reach the worker once
// each, whether they were sent to the front process, to the worker, or to
// both (a terminal and a service manager send to the whole group). The
// program must handle those that matter to it with os/signal: their default
// action is off in a worker.
package userns
