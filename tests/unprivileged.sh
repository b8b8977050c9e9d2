#!/usr/bin/env bash
# Runs the tests of packages as an unprivileged user that is made for it and
# removed afterwards. Needs root, which compiles: the user gets test binaries
# and a copy of the tree, and needs neither Go nor its caches.
#
#	tests/unprivileged.sh ./...
set -euo pipefail

[ "$(id -u)" = 0 ] || { echo "unprivileged.sh: needs root" >&2; exit 1; }
cd "$(dirname "$0")/.."
user=strata-test-$$
home=$(mktemp -d "${TMPDIR:-/var/tmp}/strata-test.XXXXXX")
chmod 755 "$home"

remove() {
	local status=$?
	trap - EXIT
	# Only this user's own processes: nobody else has its id.
	if uid=$(id -u "$user" 2>/dev/null); then
		for _ in 1 2 3 4 5; do
			pids=$(ps -o pid= -U "$uid" 2>/dev/null) || break
			# shellcheck disable=SC2086
			kill -KILL $pids 2>/dev/null || true
			sleep 0.2
		done
		userdel "$user" >/dev/null 2>&1 || true
	fi
	rm -rf "$home"
	exit $status
}
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# useradd gives subordinate ids where login.defs says so; else we do.
useradd --home-dir "$home" --no-create-home --shell /bin/bash "$user"
grep -qs "^$user:" /etc/subuid || usermod --add-subuids 2000000000-2000065535 "$user"
grep -qs "^$user:" /etc/subgid || usermod --add-subgids 2000000000-2000065535 "$user"

mkdir -p "$home/src" "$home/run" "$home/tmp"
git ls-files -z --cached --others --exclude-standard |
	tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$home/src"
install -D -m 755 bin/strata "$home/src/bin/strata"

go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' "$@" | while read -r dir; do
	[ -n "$dir" ] || continue
	rel=${dir#"$PWD"/}
	go test -c -o "$home/src/$rel/unprivileged.test" "./$rel"
	printf '%s\n' "$rel" >>"$home/packages"
done
chown -R "$user:" "$home"
chmod 700 "$home/run"

cat >"$home/go.sh" <<'INNER'
failed=0
while read -r rel; do
	cd "$HOME/src/$rel"
	if ./unprivileged.test -test.v -test.timeout=15m >"$HOME/out" 2>&1; then
		echo "ok   $rel"
	else
		echo "FAIL $rel"
		failed=1
	fi
	cat "$HOME/out"
done <"$HOME/packages"
exit $failed
INNER
env -i \
	HOME="$home" USER="$user" LOGNAME="$user" PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" \
	LANG="${LANG:-C.UTF-8}" TMPDIR="$home/tmp" XDG_RUNTIME_DIR="$home/run" STRATA_BINARY="$home/src/bin/strata" \
	setpriv --reuid "$user" --regid "$user" --clear-groups -- bash "$home/go.sh"
