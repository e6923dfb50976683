# Needs Go and make alone to run, build and test. `make integration` needs
# Node.js 20 with npm; and Python 3.10 with venv for moto, Java 17 with Maven for Amazon's
# Kinesis Client Library, and chromium for the page of `leases serve`, each of which it
# leaves out otherwise, as
# `make lint-docs` does with what it needs; `make dashboards` needs Prometheus, and gnuplot
# for a PICTURE; `make fuzz` and `make bench` need bash; the development tools are built
# from internal/devtools where a target wants them.

.DEFAULT_GOAL := help

PKG      ?= ./...
COUNT    ?= 10
FUZZTIME ?= 30s
BENCH    ?= .

TOOLS   := bin/tools
VULNDB  := bin/vulndb
MODULES := . internal/devtools
MOTO    := internal/integration/.venv/installed
LINTERS := internal/devtools/.venv/installed
KCL     := internal/integration/kcl/target/installed

# The Go release that go.mod names, whose standard library is patched, or the
# installed one where that is newer; also where Go is set up to look for none
# but itself. GOTOOLCHAIN=local in the environment keeps to the installed one.
export GOTOOLCHAIN ?= auto

# What `benthos-kinesis --version` says before the version of Benthos: the nearest
# tag in a clone, and in a source archive what the Go tool knows by itself.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION))

export STREAM TABLE REGION ENDPOINT

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: run-arguments build ## Show it at work on a local AWS; on the real one with STREAM=... TABLE=... REGION=... (and ENDPOINT=...).
	$(if $(STREAM),bin/benthos-kinesis -c,bin/demo -benthos bin/benthos-kinesis -config) docs/examples/quickstart.yaml

# REGION alone is no request for the real AWS: many shells export it.
.PHONY: run-arguments
run-arguments:
	$(if $(STREAM)$(TABLE),$(if $(and $(STREAM),$(TABLE),$(REGION)),,$(error give all of STREAM, TABLE and REGION, or none of them for the demonstration)))

.PHONY: build
build: ## Build bin/benthos-kinesis and bin/demo.
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/benthos-kinesis ./cmd/benthos-kinesis
	go build -trimpath -ldflags '-s -w' -o bin/demo ./internal/demo

# The same commit makes the same bytes, whatever is in the environment.
.PHONY: dist
dist: $(TOOLS)/cyclonedx-gomod ## Make the archives of a release in bin/dist, with lists of modules and checksums (minutes).
	go run ./internal/dist -cyclonedx $(TOOLS)/cyclonedx-gomod

.PHONY: test
test: ## Run every test that needs nothing but Go.
	go test -shuffle=on -timeout 20m ./...

# Tests that read nothing, or judge both ways themselves, have run already.
.PHONY: fan-out
fan-out: ## Run what the input promises once more, by enhanced fan-out.
	go test -shuffle=on -count=1 -timeout 20m -skip 'Simulation|Config|Lint|Spec' . -fan-out=always

.PHONY: race
race: ## Run the same tests under the race detector.
	go test -race -shuffle=on -count=1 -timeout 30m ./...

.PHONY: stress
stress: ## Run the tests of PKG under the race detector COUNT times, each in another order and with other seeds.
	for run in $$(seq $(COUNT)); do \
	  echo "run $$run of $(COUNT)"; go test -race -shuffle=on -count=1 $(PKG) || exit 1; \
	done

.PHONY: soak
soak: build ## Account for a million records through the distribution, stopped by SIGTERM and by SIGKILL (2 GB, minutes).
	go build -trimpath -o bin/soak ./internal/measure/soak
	bin/soak -benthos bin/benthos-kinesis

.PHONY: simulate
simulate: ## Simulate COUNT fleets with seeded faults, and one of 50 clients and 2,000 shards.
	go test -count=1 -timeout 90m -run 'TestSimulation$$|TestClientsThatJoin' . -sim.count=$(COUNT) -sim.full

.PHONY: fleet
fleet: build ## Measure fleets of real processes: joining, dying, standing still, blocked, cut off, idle, resharded, inside of aggregates (16 minutes).
	go build -trimpath -o bin/fleet ./internal/measure/fleet
	bin/fleet -benthos bin/benthos-kinesis

.PHONY: fleet-mixed
fleet-mixed: build ## The same with instances of Benthos' built-in input in the table (6 minutes, and 3 to build).
	go build -trimpath -o bin/fleet ./internal/measure/fleet
	go -C internal/baseline build -trimpath -o ../../bin/builtin ./cmd/builtin
	bin/fleet -scenario mixed -benthos bin/benthos-kinesis -builtin bin/builtin

.PHONY: fuzz
fuzz bench: SHELL := bash
fuzz bench: .SHELLFLAGS := -euo pipefail -c
fuzz: ## Run each fuzz target for FUZZTIME.
	go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
	  for name in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$$dir"/*_test.go 2>/dev/null | cut -d' ' -f2); do \
	    echo "$$pkg $$name"; \
	    go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null || exit 1; \
	  done; \
	done

.PHONY: integration
integration: internal/integration/node_modules/.package-lock.json $(MOTO) $(KCL) ## Run the contract suite against emulators, and the local AWS against clients, that others wrote (needs Node.js 20 with npm; moto needs Python 3.10, Amazon's client Java 17 with Maven, the page of leases serve chromium).
	@command -v chromium >/dev/null || echo 'make integration: the page of leases serve is left out: no chromium' >&2
	go test -tags integration$$(test -e $(MOTO) && echo ,moto)$$(test -e $(KCL) && echo ,kcl)$$(command -v chromium >/dev/null && echo ,browser) -shuffle=on -count=1 -parallel 8 -timeout 10m ./internal/integration/...

.PHONY: dashboards
dashboards: build ## Check dashboard and alert rules with promtool and a Prometheus over a running group (needs both); draw the dashboard with PICTURE=FILE (needs gnuplot).
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { echo 'make dashboards: prometheus or promtool not found; on Debian: apt-get install --no-install-recommends prometheus' >&2; exit 1; }
	go test -tags prometheus -count=1 -timeout 10m ./internal/dashboard -benthos $(CURDIR)/bin/benthos-kinesis $(if $(PICTURE),-picture $(abspath $(PICTURE)))

# Install scripts are not run: what is installed works without them.
internal/integration/node_modules/.package-lock.json: internal/integration/package-lock.json
	@command -v npm >/dev/null || { echo 'make integration: npm not found; install Node.js 20 or later' >&2; exit 1; }
	npm ci --prefix internal/integration --ignore-scripts --no-audit --no-fund
	@touch $@

# Nothing is made where there is no Python to make it with, and moto's tests are not
# built then. What is half made does not stay behind.
$(MOTO) $(LINTERS): internal/%/.venv/installed: internal/%/requirements.txt
	@rm -rf $(@D); \
	if ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	  echo 'make: what $< names is left out: no python3 of 3.10 or later with venv and ensurepip' >&2; \
	elif python3 -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r $<; then \
	  touch $@; \
	else \
	  rm -rf $(@D); exit 1; \
	fi

# The same for Amazon's client. What is downloaded is kept in Maven's own folder, so that
# it is there without a network from then on.
$(KCL): internal/integration/kcl/pom.xml internal/integration/kcl/src/main/java/Reader.java
	@rm -rf $(@D); \
	if ! command -v mvn >/dev/null || ! test "$$(javac -version 2>&1 | sed -nE 's/^javac ([0-9]+).*/\1/p')" -ge 17 2>/dev/null; then \
	  echo "make integration: Amazon's Kinesis Client Library is left out: no Maven, or no JDK of 17 or later" >&2; \
	elif mvn -C -B -q -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(abspath $(@D))/lib \
	  && javac -nowarn --release 17 -d $(@D)/classes -cp '$(@D)/lib/*' internal/integration/kcl/src/main/java/Reader.java; then \
	  touch $@; \
	else \
	  rm -rf $(@D); exit 1; \
	fi

.PHONY: cover
cover: ## Show the coverage of each package, in coverage.out by line.
	go test -shuffle=on -count=1 -covermode=atomic -coverprofile=coverage.out . ./internal/...
	go tool cover -func=coverage.out | tail -n 1

.PHONY: bench
bench: $(TOOLS)/benchstat ## Run the benchmarks of PKG that BENCH names, COUNT times each, and sum them up.
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count=$(COUNT) $(PKG) | tee bin/bench.txt
	$(TOOLS)/benchstat bin/bench.txt

.PHONY: bench-throughput
bench-throughput: build ## Measure what a record costs over TLS, in JSON and in CBOR, beside Benthos' built-in input and the host alone (10 minutes, and 3 to build).
	go -C internal/baseline build -trimpath -o ../../bin/builtin ./cmd/builtin
	go -C internal/baseline build -trimpath -o ../../bin/floor ./cmd/floor
	go build -trimpath -o bin/e2e ./internal/measure/e2e
	bin/e2e -benthos bin/benthos-kinesis -plot bin/throughput.svg

.PHONY: bench-e2e
bench-e2e: bench-throughput ## The same, and memory behind a slow output, the limits of a shard, delay, a slow link, a burst, order by key (20 minutes).
	for scenario in slow limit trickle slow-link burst keys; do bin/e2e -scenario $$scenario -benthos bin/benthos-kinesis -builtin '' || exit 1; done

.PHONY: bench-fan-out
bench-fan-out: build ## Compare enhanced fan-out with polling: delay, cost, 1,000 shards, a blocked output, other readers (20 minutes).
	go build -trimpath -o bin/e2e ./internal/measure/e2e
	bin/e2e -scenario fan-out -benthos bin/benthos-kinesis

.PHONY: bench-wire
bench-wire: build ## Measure the wire: connections that a network drops, and how many there are, their handshakes and bytes (25 minutes).
	go build -trimpath -o bin/e2e ./internal/measure/e2e
	for scenario in dead connections; do bin/e2e -scenario $$scenario -benthos bin/benthos-kinesis || exit 1; done

.PHONY: fmt
fmt: $(TOOLS)/gofumpt ## Format the code.
	$(TOOLS)/gofumpt -w .

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## Check layers, style, format and common mistakes.
	go vet -tags integration,moto,kcl,browser,prometheus ./...
	$(TOOLS)/golangci-lint run ./...

.PHONY: docs
docs: ## Write docs/aws_kinesis.md from the registered fields, docs/dashboards from the metrics, and the list of messages in docs/operating.md.
	go run ./internal/docgen

.PHONY: docs-check
docs-check: ## Check that these are what `make docs` writes, and that the list has every message of the code.
	go run ./internal/docgen -check

# Of Terraform that without a provider, which has to be fetched, is checked: the form of
# all, and what the policies become.
.PHONY: lint-docs
lint-docs: $(LINTERS) ## Check the templates in docs/ by their own tools (Terraform 1.6, Python 3.10), those that are there.
	@if command -v terraform >/dev/null; then \
	  terraform fmt -check -recursive docs/terraform && terraform -chdir=docs/terraform/policies test -no-color; \
	else \
	  echo 'make lint-docs: docs/terraform is left out: no terraform' >&2; \
	fi
	@if test -e $(LINTERS); then \
	  $(<D)/bin/cfn-lint --non-zero-exit-code warning docs/cloudformation/*.yaml && $(<D)/bin/kubernetes-validate --strict docs/kubernetes/*.yaml; \
	else \
	  echo 'make lint-docs: docs/cloudformation and docs/kubernetes are left out' >&2; \
	fi

.PHONY: tidy-check
tidy-check: ## Check that each go.mod and go.sum is tidy.
	for dir in $(MODULES); do go -C $$dir mod tidy -diff || exit 1; done

.PHONY: vuln
vuln: $(TOOLS)/govulncheck $(VULNDB)/index/db.json ## Check that no known vulnerability is reachable from what is shipped.
	$(TOOLS)/govulncheck -db 'file://$(CURDIR)/$(VULNDB)' ./...

.PHONY: ci
ci: ## Run every check in the order of continuous integration.
	.ci/run

.PHONY: clean
clean: ## Remove what was built and installed.
	rm -rf bin coverage.out internal/integration/node_modules internal/integration/.venv internal/integration/kcl/target internal/devtools/.venv

# Built again when a pinned version changes.
$(TOOLS)/golangci-lint: internal/devtools/go.mod internal/devtools/go.sum
	go -C internal/devtools build -trimpath -ldflags '-s -w' -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/gofumpt: internal/devtools/go.mod internal/devtools/go.sum
	go -C internal/devtools build -trimpath -ldflags '-s -w' -o ../../$@ mvdan.cc/gofumpt
$(TOOLS)/benchstat: internal/devtools/go.mod internal/devtools/go.sum
	go -C internal/devtools build -trimpath -ldflags '-s -w' -o ../../$@ golang.org/x/perf/cmd/benchstat
$(TOOLS)/cyclonedx-gomod: internal/devtools/go.mod internal/devtools/go.sum
	go -C internal/devtools build -trimpath -ldflags '-s -w' -o ../../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
$(TOOLS)/govulncheck: internal/devtools/go.mod internal/devtools/go.sum
	go -C internal/devtools build -trimpath -ldflags '-s -w' -o ../../$@ golang.org/x/vuln/cmd/govulncheck

# What is known is pinned like a tool: a check that passes passes again. It is
# moved in last, so that no half of it stays behind.
$(VULNDB)/index/db.json: internal/devtools/go.mod internal/devtools/go.sum
	rm -rf $(VULNDB) $(VULNDB).new
	go -C internal/devtools mod download golang.org/x/vulndb
	go -C internal/devtools tool indexdb -out ../../$(VULNDB).new \
	  -vulns "$$(go -C internal/devtools list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv"
	mv $(VULNDB).new $(VULNDB)
