#!/usr/bin/env bash
# All tests, as this user, and, when this is root, as an unprivileged user
# too. Ends with what was skipped and why, since a test may skip what a
# machine cannot do, and with the counts.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
failed=0

step() { # name command... (which prints what go test -json does)
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	"$@" 2>&1 | tee "$log/$((++steps)).json" | "$log/summary" || failed=1
	echo "   ($((SECONDS - start)) s)"
}
steps=0

make --no-print-directory build
go build -o "$log/summary" ./tests/summary
export STRATA_BINARY=$PWD/bin/strata
echo "== vet"
go vet ./...
step "tests as $(id -un)" go test -json -vet=off -timeout 15m ./...
if [ "$(id -u)" = 0 ]; then
	step "tests as an unprivileged user" tests/unprivileged.sh ./...
else
	echo "== not root: the tests that need root are skipped; run them with: sudo make test"
fi
"$log/summary" -counts "$log"/*.json
exit $failed
