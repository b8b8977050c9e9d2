#!/bin/sh
# A Debian image: debian.sh [NAME [SUITE [MIRROR]]]. Needs mmdebstrap and the network.
set -eu
strata=${BUILDER:-strata}
name=${1:-debian-minimal}
suite=${2:-bookworm}
mirror=${3:-}

tar=$(mktemp "${TMPDIR:-/tmp}/debian.XXXXXX.tar")
trap 'rm -f "$tar"' EXIT
# A container gets its own device nodes, and only root could unpack others.
mmdebstrap --quiet --variant=minbase --skip=output/dev "$suite" "$tar" ${mirror:+"$mirror"}
c=$($strata from scratch)
# strata takes the archive from a pipe too: mmdebstrap ... | strata add "$c" - /
$strata add -q "$c" "$tar" /
$strata config --env PATH=/usr/sbin:/usr/bin:/sbin:/bin --cmd /bin/bash "$c"
$strata commit -q "$c" "$name"
$strata rm "$c" >/dev/null
