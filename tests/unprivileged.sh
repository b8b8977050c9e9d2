#!/usr/bin/env bash
# Runs the tests of packages as an unprivileged user that is made for it and
# removed afterwards. Needs root, which compiles: the user gets test binaries
# and a copy of the tree, and needs neither Go nor its caches. What it prints
# has the form of go test -json.
#
#	tests/unprivileged.sh ./...
#
# STRATA_TEST_RUN is a pattern of the tests to run (go test -run), and
# STRATA_TEST_ENV names variables that the user gets, too.
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
		# The user database may be locked by another run's useradd.
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			userdel "$user" >/dev/null 2>&1 || true
			id -u "$user" >/dev/null 2>&1 || break
			sleep 0.5
		done
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
touch "$home/packages"
chown -R "$user:" "$home"
chmod 700 "$home/run"

cat >"$home/go.sh" <<'INNER'
failed=0
mkdir "$HOME/results"
while read -r rel; do
	cd "$HOME/src/$rel"
	status=ok
	./unprivileged.test -test.v=test2json -test.timeout=15m -test.run="$STRATA_TEST_RUN" </dev/null >"$HOME/out" 2>&1 || { status=FAIL; failed=1; }
	# The names are the user's: root reads what is in them, nothing more.
	mv "$HOME/out" "$HOME/results/${rel//\//%}"
	echo "   $status $rel" >&2
done <"$HOME/packages"
exit $failed
INNER
status=0
given=(STRATA_TEST_RUN="${STRATA_TEST_RUN:-}")
for name in ${STRATA_TEST_ENV:-}; do
	[ -z "${!name+set}" ] || given+=("$name=${!name}")
done
env -i \
	HOME="$home" USER="$user" LOGNAME="$user" PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" \
	LANG="${LANG:-C.UTF-8}" TMPDIR="$home/tmp" XDG_RUNTIME_DIR="$home/run" STRATA_BINARY="$home/src/bin/strata" "${given[@]}" \
	setpriv --reuid "$user" --regid "$user" --clear-groups -- bash "$home/go.sh" || status=$?
while read -r rel; do
	go tool test2json -t -p "unprivileged/$rel" <"$home/results/${rel//\//%}" || status=1
done <"$home/packages"
exit $status
