// Package binfmt finds out whether the kernel can execute programs of another
// architecture: natively, or through an emulator that is registered with
// binfmt_misc (Documentation/admin-guide/binfmt-misc.rst; Linux 2.1.43, the
// flag F since 4.8, one instance for each user namespace since 6.7).
//
// A registration counts when it matches the head of an ELF file of the
// architecture, whatever its name is: qemu, FEX, box64 and Rosetta are all
// found so. Where binfmt_misc is not mounted, as in many containers and below a
// /proc of one's own, the kernel is asked by executing such a head, which fails
// with ENOEXEC exactly when nothing is registered.
package binfmt
