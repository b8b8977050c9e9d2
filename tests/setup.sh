#!/usr/bin/env bash
# Makes ready what is needed besides Go and git: Debian's busybox-static (the
# base image) and uidmap (rootless builds with many ids); for "test" also the
# peers that read and run what strata makes, for "real" also mmdebstrap. Root
# installs them; others are told what is missing and what that costs.
#
#	tests/setup.sh [test|real]
set -euo pipefail

need() { # program package what-it-is-for
	command -v "$1" >/dev/null 2>&1 && return 0
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		if [ "${into:-}" = peers ]; then peers+=("$2"); else packages+=("$2"); fi
	else
		echo "setup: $1 is missing ($3); root can install it: apt-get install $2" >&2
	fi
}

static_busybox() {
	local b
	b=$(command -v busybox) && ! LC_ALL=C ldd "$b" 2>/dev/null | grep -q '=>'
}

packages=() peers=()
if ! static_busybox; then
	need busybox-that-is-static busybox-static "the base image is then made from Go's own programs or skipped"
fi
need newuidmap uidmap "rootless builds then map one id only"
need setpriv util-linux "tests as another user are then skipped"
need xz xz-utils "tests of xz archives are then skipped"
need bzip2 bzip2 "tests of bzip2 archives are then skipped"

case ${1:-} in
test)
	for peer in skopeo podman buildah runc crun git; do
		into=peers need "$peer" "$peer" "tests with $peer are then skipped"
	done
	into=peers need nft nftables "tests beside other tables are then skipped"
	into=peers need gcc gcc "the comparison with libseccomp is then skipped"
	[ -e /usr/include/seccomp.h ] || into=peers need libseccomp-headers libseccomp-dev "the comparison with libseccomp is then skipped"
	into=peers need bindfs bindfs "tests of homes on a server's file system are then skipped"
	into=peers need dbus-daemon dbus "the call to systemd is then tried on a bus of ours only"
	into=peers need qemu-aarch64-static qemu-user-static "tests of RUN for other architectures are then skipped"
	;;
real)
	need mmdebstrap mmdebstrap "the Debian base of the real builds is made with it"
	need buildah buildah "there is then no comparison"
	need runc runc "buildah runs its steps with it"
	for peer in podman strace curl zstd pigz; do
		into=peers need "$peer" "$peer" "there is then no comparison"
	done
	into=peers need slirp4netns slirp4netns "there is then no comparison of networks"
	into=peers need pasta passt "there is then no comparison of networks"
	;;
esac

install() {
	[ $# -gt 0 ] || return 0
	echo "setup: installing $*" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
		apt-get update -qq >/dev/null
		apt-get install -y -qq --no-install-recommends "$@" >/dev/null
	}
}

install "${packages[@]}"
# Without the peers there are fewer tests, but there are tests.
install "${peers[@]}" || echo "setup: ${peers[*]} could not be installed: tests with them are skipped" >&2

command -v go >/dev/null 2>&1 || {
	echo "setup: Go is missing; install the version that go.mod names" >&2
	exit 1
}
