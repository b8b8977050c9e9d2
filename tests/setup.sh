#!/usr/bin/env bash
# Makes ready what the demo and the tests need besides Go and git: Debian's
# busybox-static (the base image) and uidmap (rootless builds with many ids).
# Root installs them; others are told what is missing and what that costs.
set -euo pipefail

need() { # program package what-it-is-for
	command -v "$1" >/dev/null 2>&1 && return 0
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		packages+=("$2")
	else
		echo "setup: $1 is missing ($3); root can install it: apt-get install $2" >&2
	fi
}

static_busybox() {
	local b
	b=$(command -v busybox) && ! LC_ALL=C ldd "$b" 2>/dev/null | grep -q '=>'
}

packages=()
if ! static_busybox; then
	need busybox-that-is-static busybox-static "the base image is then made from Go's own programs or skipped"
fi
need newuidmap uidmap "rootless builds then map one id only"
need setpriv util-linux "tests as another user are then skipped"
need xz xz-utils "tests of xz archives are then skipped"
need bzip2 bzip2 "tests of bzip2 archives are then skipped"

if [ ${#packages[@]} -gt 0 ]; then
	echo "setup: installing ${packages[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null 2>&1 || {
		apt-get update -qq >/dev/null
		apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
	}
fi

command -v go >/dev/null 2>&1 || {
	echo "setup: Go is missing; install the version that go.mod names" >&2
	exit 1
}
