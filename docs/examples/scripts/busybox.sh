#!/bin/sh
# An image from scratch, of this machine's static busybox: busybox.sh [NAME]
set -eu
strata=${BUILDER:-strata}
name=${1:-busybox-from-scratch}

c=$($strata from scratch)
$strata copy -q "$c" "$(command -v busybox)" /bin/busybox
$strata run "$c" /bin/busybox --install -s /bin
$strata config --env PATH=/bin --cmd /bin/sh --label purpose=example "$c"
$strata commit -q "$c" "$name"
$strata rm "$c" >/dev/null
