#!/bin/sh
# A Go program alone in its image: go-service.sh DIR [NAME]. Needs Go.
set -eu
strata=${BUILDER:-strata}
dir=$1
name=${2:-go-service}

out=$(mktemp -d "${TMPDIR:-/tmp}/go-service.XXXXXX")
trap 'rm -rf "$out"' EXIT
(cd "$dir" && CGO_ENABLED=0 go build -trimpath -o "$out/service" .)
c=$($strata from scratch)
$strata copy -q "$c" "$out/service" /service
$strata config --entrypoint '["/service"]' --user 65532:65532 --port 8080 "$c"
$strata commit -q "$c" "$name"
$strata rm "$c" >/dev/null
