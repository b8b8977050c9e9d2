# What strata's makers run. `make` alone lists the targets.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED := 0
TAGS    := containers_image_openpgp,exclude_graphdriver_btrfs
export GOFLAGS := -tags=$(TAGS) -buildvcs=false

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The commit's time, so that two builds of one commit are equal.
DATE    := $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
CLI     := github.com/stratabuild/strata/cmd/cli
LDFLAGS := -s -w -X $(CLI).buildVersion=$(VERSION) -X $(CLI).buildCommit=$(COMMIT) -X $(CLI).buildDate=$(DATE)

STRATA := $(CURDIR)/bin/strata
FUZZTIME ?= 30s
# The parts that builds spend their time in, see docs/design/performance.md.
BENCH    ?= StreamOf10000Files|Digest10000Files|Digests|Lookup|Layer20000|Mount$$|Init$$|Run$$
BENCH_JSON  ?= bin/bench.json
BENCH_FLAGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
		while IFS=$$'\t' read -r name what; do printf '  %-14s %s\n' "$$name" "$$what"; done

.PHONY: build
build: ## build bin/strata, a static binary
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(STRATA) ./cmd/strata

.PHONY: demo
demo: ## build strata, build an image with it, build it again from the cache
	tests/setup.sh
	$(MAKE) --no-print-directory build
	docs/examples/hello/demo.sh $(STRATA)

.PHONY: test
test: ## all tests, as this user and, when this is root, as an unprivileged one too
	tests/setup.sh test
	tests/run.sh

.PHONY: unit
unit: ## the tests beside the code, as this user
	go test ./...

.PHONY: check
check: ## format, vet, lint, layers, drift of the docs
	@files="$$(gofmt -l $$(git ls-files '*.go'))"; if [ -n "$$files" ]; then echo "gofmt would change:" $$files; exit 1; fi
	go vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "golangci-lint is not installed: skipped"; fi
	go test ./tests -run 'TestLayers|TestDocs' -count=1

.PHONY: docs
docs: ## write docs/reference and docs/man anew
	go generate ./docs

.PHONY: e2e
e2e: build ## the end-to-end tests, as this user
	go test ./tests/... -count=1 -timeout 20m

.PHONY: e2e-rootless
e2e-rootless: build ## the end-to-end tests, as an unprivileged user
	tests/setup.sh
	tests/unprivileged.sh ./tests/... | go run ./tests/summary

.PHONY: security
security: build ## the tests of published weaknesses, races 5000 times (hours); one row: go test ./tests/security -run /CVE-2024-1753
	STRATA_BINARY=$(STRATA) STRATA_SECURITY_TRIES=5000 go test ./tests/security -count=1 -timeout 4h

.PHONY: places
places: build ## the end-to-end scripts in every kind of place; writes docs/places.md (needs root)
	STRATA_BINARY=$(STRATA) go run ./tests/places -write docs/places.md

.PHONY: vm
vm: build ## tests on other kernels' arrangements, in an emulated machine: cgroup v2, v1, systemd, AppArmor (needs root)
	STRATA_BINARY=$(STRATA) tests/vm/run.sh

.PHONY: race
race: ## the tests beside the code with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@go list -f '{{.Dir}}' ./... | while read -r dir; do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -d' ' -f2); do \
			echo "== $$f in $${dir#$(CURDIR)/}"; \
			go test "$$dir" -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME); \
		done; \
	done

.PHONY: corpus-peer
corpus-peer: ## the corpus of build files with Debian's buildah, and where it differs (needs root)
	tests/setup.sh
	CORPUS_PEER=buildah go test ./tests -run 'TestCorpusPeer$$|TestCorpusBuildKit$$' -count=1 -v -timeout 30m

.PHONY: bench
bench: build ## strata beside the builders found here and plain tools, as a table (hours; BENCH_FLAGS='-only REGEXP -tools LIST' for less)
	tests/setup.sh real
	go run ./tests/bench -strata $(STRATA) -json $(BENCH_JSON) $(BENCH_FLAGS)
	$(MAKE) --no-print-directory bench-network

.PHONY: bench-network
bench-network: ## networks of steps beside slirp4netns and pasta: making and closing one, throughput
	go test ./builder/network -run '^$$' -bench 'Networks/./open' -benchtime 40x
	go test ./builder/network -run '^$$' -bench 'Networks/./load' -benchtime 2000x

# The words after bench-compare are files, not targets.
ifeq (bench-compare,$(firstword $(MAKECMDGOALS)))
COMPARED := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(COMPARED)
$(COMPARED): ; @:
endif

.PHONY: bench-compare
bench-compare: ## two results of bench side by side: make bench-compare OLD.json NEW.json
	go run ./tests/bench -compare $(or $(COMPARED),$(OLD) $(NEW))

.PHONY: bench-go
bench-go: ## the Go benchmarks of the hot parts, some seconds each: make bench-go [BENCH=REGEXP]
	go test ./builder/layer ./builder/cache ./builder/store ./builder/overlay ./builder/isolation/embedded ./copier \
		-run '^$$' -bench '$(BENCH)' -benchmem -benchtime 100ms

.PHONY: test-real
test-real: build ## builds of real projects (needs the network and some minutes)
	tests/setup.sh real
	STRATA_BINARY=$(STRATA) go test ./tests -run TestExampleScripts -tags=$(TAGS),real -count=1 -timeout 30m -v
	@# The same by an unprivileged user, who reaches the network as we do.
	[ "$$(id -u)" != 0 ] || GOFLAGS="-tags=$(TAGS),real -buildvcs=false" GOPROXY="$$(go env GOPROXY)" GOSUMDB="$$(go env GOSUMDB)" \
		STRATA_TEST_RUN=TestExampleScripts STRATA_TEST_ENV="PATH GOPROXY GOSUMDB STRATA_TEST_MIRROR SSL_CERT_FILE SSL_CERT_DIR \
		http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY" tests/unprivileged.sh ./tests | go run ./tests/summary
	go test ./tests/real/... -tags=$(TAGS),real -count=1 -timeout 60m -v

.PHONY: clean
clean: ## remove what the targets made
	@# The store's layers hold files of other ids: strata removes them itself.
	@if [ -x $(STRATA) ] && [ -d bin/demo-store/root ]; then \
		$(STRATA) --root bin/demo-store/root --runroot bin/demo-store/run prune --all --force >/dev/null || true; fi
	rm -rf bin
