// Package vm holds what runs strata's tests in an emulated machine, for what
// the host's kernel cannot show: control groups of version 2 alone, of
// version 1, and of both; delegation by systemd, to users too; AppArmor; a
// kernel that is older. It is make vm, and needs root, qemu and a mirror of
// Debian's.
//
// STRATA_VM_SUITE=bullseye takes Debian 11's kernel 5.10, which is older than
// what strata's own containers need (5.12): steps get chroot isolation there.
//
//	run.sh     boots the machine once for each arrangement and prints results
//	setup.sh   makes the machine, once
//	inside.sh  is what runs in it
package vm
