// Package owners remembers the owners that a step gives to files where the
// user namespace has one id, and shows them to it.
//
// The kernel refuses chown(2) to an id that is not mapped (EINVAL). A step's
// filter can have such calls decided by a listener (SECCOMP_RET_USER_NOTIF,
// Linux 5.0), which is this package: it opens the file that the caller names,
// as the caller would, notes the owner in copier.OwnerXattr, or for what cannot
// have attributes in the layer's copier.OwnerLog, and answers 0. The layer is
// written with these owners. stat(2) and its kin are answered with them, since
// programs carry owners from one file to another: cp -a, sed -i, chgrp, useradd.
// Calls that change the caller's ids succeed by the kernel's rules, but change
// only what the caller and its children are told, which may be another user
// from the step's beginning. Calls that make files are let pass, and what they
// made is noted as its maker's before the next call is answered. Who is told
// that it is not root is refused what that user would be: the kernel takes all
// files for the caller's own. That is for images to be as root makes them, and
// confines nobody: what is asked is looked at again by the kernel.
//
// What a hostile step can gain: nothing that it could not have with setfattr.
//
//   - The listener works in a thread that is inside the step's mount namespace
//     and root, where the kernel's own lookup cannot leave the step's mounts.
//     Links of /proc are not followed. Nothing is opened but as O_PATH.
//   - Only files on mounts that were named by their ids are touched: the
//     step's root, and trees that are the builder's own. Everything else is
//     left to the kernel: files of the host's in volumes, /dev, /proc.
//   - The file is found once, and all that follows is done to what was found.
//     What a caller's memory says counts after SECCOMP_IOCTL_NOTIF_ID_VALID: a
//     process that took over the number of a dead one is never read or written.
//   - The caller must have CAP_CHOWN in the builder's user namespace, or be told
//     that it is root by a program with setuid bits in another user's step.
//
// Steps that ask about nothing never wake the thread. A call costs some 5 us
// when nothing is remembered, and 10 to 20 us when something is.
package owners
