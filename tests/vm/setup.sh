#!/usr/bin/env bash
# Makes the machine of tests/vm/run.sh: Debian with systemd, its kernel and
# its initramfs, in a directory that is kept for later runs. Needs root,
# mmdebstrap, qemu, mke2fs and a mirror.
#
#	tests/vm/setup.sh DIRECTORY
#
# STRATA_VM_SUITE is Debian's release: bookworm (Linux 6.1), bullseye (5.10).
set -euo pipefail

dir=$1
[ -e "$dir/root.img" ] && exit 0
skip() { echo "vm: skipped: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root, which makes the machine's disk"
export DEBIAN_FRONTEND=noninteractive
need() { # program package
	command -v "$1" >/dev/null 2>&1 && return 0
	command -v apt-get >/dev/null 2>&1 || skip "$1 is missing"
	apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 || skip "$1 is missing and $2 could not be installed"
}
need qemu-system-x86_64 qemu-system-x86
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs

mkdir -p "$dir"
work=$(mktemp -d "$dir/setup.XXXXXX")
trap 'rm -rf "$work"' EXIT
packages=(systemd systemd-sysv dbus dbus-user-session libpam-systemd uidmap busybox-static apparmor util-linux kmod iproute2
	nftables git xz-utils bzip2 procps runc linux-image-cloud-amd64 initramfs-tools zstd)
mirror=${STRATA_TEST_MIRROR:-http://deb.debian.org/debian}
suite=${STRATA_VM_SUITE:-bookworm}
echo "vm: making a machine of Debian $suite (some minutes)" >&2
mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
	--customize-hook='chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 dev' \
	--customize-hook='chroot "$1" usermod --add-subuids 200000-265535 --add-subgids 200000-265535 dev' \
	--customize-hook='mkdir -p "$1/var/lib/systemd/linger" "$1/payload"; touch "$1/var/lib/systemd/linger/dev"' \
	--customize-hook='printf "[Unit]\nAfter=multi-user.target dbus.service systemd-logind.service user@1000.service\nRequiresMountsFor=/payload\n[Service]\nType=oneshot\nDelegate=yes\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\nExecStart=/payload/inside.sh\nExecStopPost=/bin/systemctl poweroff --force --force\n[Install]\nWantedBy=default.target\n" >"$1/etc/systemd/system/payload.service"' \
	--customize-hook='chroot "$1" systemctl enable payload.service; chroot "$1" systemctl mask serial-getty@ttyS0.service getty@tty1.service systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer' \
	--customize-hook='printf "/dev/vda / ext4 defaults 0 1\n/dev/vdb /payload ext4 ro,x-systemd.device-timeout=0 0 0\n" >"$1/etc/fstab"; echo vm >"$1/etc/hostname"' \
	"$suite" "$work/root" "$mirror" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; skip "mmdebstrap could not make it"; }
cp -L "$work/root/vmlinuz" "$dir/vmlinuz"
cp -L "$work/root/initrd.img" "$dir/initrd.img"
mke2fs -q -t ext4 -d "$work/root" "$work/root.img" 3G
mv "$work/root.img" "$dir/root.img"
