#!/usr/bin/env bash
# All tests, as this user, and, when this is root, as an unprivileged user
# too. Ends with a count of what was skipped, since a test may skip what a
# machine cannot do.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
failed=0

step() { # name command...
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	if "$@" >"$log/out" 2>&1; then
		echo "   passed ($((SECONDS - start)) s)"
	else
		failed=1
		# What passed is of no interest now.
		grep -vE '^ *(=== (RUN|PAUSE|CONT|NAME)|--- (PASS|SKIP))|^(ok|PASS|\?)\b' "$log/out" || true
		echo "   FAILED ($((SECONDS - start)) s)"
	fi
	cat "$log/out" >>"$log/all"
}

make --no-print-directory build
export STRATA_BINARY=$PWD/bin/strata
step "vet" go vet ./...
step "tests as $(id -un)" go test -v -timeout 15m ./...
if [ "$(id -u)" = 0 ]; then
	step "tests as an unprivileged user" tests/unprivileged.sh ./...
else
	echo "== not root: the tests that need root are skipped; run them with: sudo make test"
fi

count() { grep -cE "^ *--- $1: " "$log/all" || true; }
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
exit $failed
