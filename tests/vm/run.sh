#!/usr/bin/env bash
# Runs what needs another kernel than the host's, or another arrangement of
# control groups, in a small machine of Debian's with systemd, emulated by
# qemu (no KVM needed): pure control groups of version 2, hybrid, version 1;
# delegation by systemd; AppArmor; Debian's own kernel. Nothing of the host
# changes. Prints a line for each test, and exits with 1 when one failed.
#
#	tests/vm/run.sh [v2|hybrid|v1...]
#
# STRATA_BINARY is the program to test, STRATA_VM_SUITE Debian's release
# (bookworm; bullseye has Linux 5.10), STRATA_VM_DIR where the machine is kept
# (bin/vm), STRATA_VM_TESTS a pattern of root's scripts, STRATA_VM_USER_TESTS of
# a user's beside it, STRATA_VM_TIMEOUT how many seconds a machine may run.
# Without KVM a build takes seconds, and tens of them beside other work.
set -euo pipefail
cd "$(dirname "$0")/../.."

machine=${STRATA_VM_DIR:-$PWD/bin/vm${STRATA_VM_SUITE:+-$STRATA_VM_SUITE}}
status=0
tests/vm/setup.sh "$machine" || status=$?
[ $status != 77 ] || exit 0
[ $status = 0 ] || exit $status
binary=${STRATA_BINARY:-$PWD/bin/strata}
modes=("$@")
[ $# -gt 0 ] || modes=(v2 hybrid v1)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-vm.XXXXXX")
qemu=
remove() {
	local status=$?
	trap - EXIT
	[ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
	rm -rf "$work"
	exit $status
}
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$work/payload/src/tests"
cp "$binary" "$work/payload/strata"
cp -r tests/scripts "$work/payload/src/tests/"
cp go.mod "$work/payload/src/"
cp tests/vm/inside.sh "$work/payload/"
go test -c -o "$work/payload/src/tests/tests.test" ./tests
go test -c -o "$work/payload/cgroup.test" ./builder/cgroup
go test -c -o "$work/payload/embedded.test" ./builder/isolation/embedded
printf '%s\n' "${STRATA_VM_TESTS:-}" >"$work/payload/pattern"
printf '%s\n' "${STRATA_VM_USER_TESTS:-}" >"$work/payload/pattern-user"
mke2fs -q -t ext4 -d "$work/payload" "$work/payload.img" 400M

boot() { # mode kernel-arguments...
	local mode=$1
	shift
	local accel=tcg,thread=multi
	[ ! -w /dev/kvm ] || ! grep -qE 'vmx|svm' /proc/cpuinfo || accel=kvm
	qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m 2048 -nographic -no-reboot -nodefaults -serial stdio -monitor none \
		-kernel "$machine/vmlinuz" -initrd "$machine/initrd.img" \
		-drive "file=$machine/root.img,if=virtio,format=raw,snapshot=on" \
		-drive "file=$work/payload.img,if=virtio,format=raw,snapshot=on" \
		-append "root=/dev/vda rw console=ttyS0 quiet panic=-1 no_timer_check systemd.default_timeout_start_sec=900 strata.mode=$mode $*" </dev/null >"$work/console" 2>&1 &
	qemu=$!
	local waited=0
	while kill -0 $qemu 2>/dev/null && [ $waited -lt "${STRATA_VM_TIMEOUT:-14400}" ]; do
		sleep 1
		waited=$((waited + 1))
	done
	kill -KILL $qemu 2>/dev/null || true
	wait $qemu 2>/dev/null || true
	qemu=
}

failed=0
for mode in "${modes[@]}"; do
	echo "== control groups $mode"
	start=$SECONDS
	case $mode in
	v2) boot "$mode" systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all apparmor=1 security=apparmor ;;
	hybrid) boot "$mode" systemd.unified_cgroup_hierarchy=0 ;;
	v1) boot "$mode" systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1 ;;
	*)
		echo "vm: $mode: want v2, hybrid or v1" >&2
		exit 2
		;;
	esac
	tr -d '\r' <"$work/console" >"$work/$mode.log"
	[ -z "${STRATA_VM_LOG:-}" ] || cp "$work/$mode.log" "$STRATA_VM_LOG.$mode"
	grep -aE '^VM (pass|FAIL|skip|note) ' "$work/$mode.log" || true
	if ! grep -aq '^VM end$' "$work/$mode.log"; then
		echo "the machine did not come to its end; its last words:"
		tail -n 30 "$work/$mode.log"
		failed=1
	elif grep -aq '^VM FAIL' "$work/$mode.log"; then
		sed -n '/^VM output/,/^VM end of output/p' "$work/$mode.log"
		failed=1
	fi
	echo "   ($((SECONDS - start)) s)"
done
exit $failed
