#!/usr/bin/env bash
# Shows what strata does, with a store of its own below bin/demo-store:
# a base image from this machine's busybox, a build in two stages, the result
# run in a third, and the same build again from the cache, with the reasons.
#
#	docs/examples/hello/demo.sh bin/strata
set -euo pipefail

strata=$(readlink -f "$1")
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
cd "$top"

store=$top/bin/demo-store
mkdir -p "$store"
export STRATA_ROOT=$store/root STRATA_RUNROOT=$store/run

say() { printf '\n\033[1m# %s\033[0m\n' "$*" | if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }
run() {
	echo "\$ strata $*"
	"$strata" "$@"
}

say "a base image, made from this machine's busybox, as an OCI layout"
[ -f "$store/base/index.json" ] || go run ./tests/baseimage/cmd "$store/base"
run pull -q "oci:$store/base:busybox"
"$strata" tag "$("$strata" pull -q "oci:$store/base:busybox")" busybox

say "a build in two stages"
run build -t hello --target image docs/examples/hello

say "the images"
run images

say "what the image runs"
run build --no-cache --target try docs/examples/hello 2>&1 | grep '^Hello from strata'

say "the same build again: nothing runs, and why"
run build --explain -t hello --target image docs/examples/hello

say "with another greeting: what runs, and why"
run build --explain --build-arg GREETING="Good day" -t hello:polite --target image docs/examples/hello

if [ "$(id -u)" != 0 ]; then
	say "this ran as $(id -un), without root; as root the steps run without a user namespace"
fi
