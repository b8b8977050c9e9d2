#!/bin/sh
# An image whose files the host's dpkg unpacks: mount.sh PACKAGE.deb [NAME]
# For users other than root: strata script mount.sh PACKAGE.deb
set -eu
strata=${BUILDER:-strata}
name=${2:-from-package}

c=$($strata from scratch)
root=$($strata mount "$c")
dpkg-deb --extract "$1" "$root"
$strata umount "$c" >/dev/null
$strata commit -q "$c" "$name"
$strata rm "$c" >/dev/null
