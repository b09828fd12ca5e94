# Novastream. `make help` lists the targets.
GO ?= go
STATICCHECK_VERSION := v0.8.2
FUZZTIME ?= 3s
TORTURETIME ?= 60s
KILLS ?= 100000
SOAKTIME ?= 10m
WORDS ?= 1000000000
ARGS ?=

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: ## the main job on real input: every file of a folder over each lane (ARGS=PATH)
	$(GO) run ./cmd/nova demo $(ARGS)

.PHONY: test
test: tools format vet staticcheck cross unit safe race model test-crash fuzz torture-short test-rdma ## install what is needed, then all checks

.PHONY: nightly
nightly: export FUZZTIME = 2m
nightly: tools ## what takes hours: also with FUZZTIME, SOAKTIME, KILLS and WORDS of your own
	@MAKE="$(MAKE)" ./scripts/each.sh soak fuzz test-hostile kills

.PHONY: tools
tools: ## install what the checks need
	@./scripts/tools.sh $(STATICCHECK_VERSION)

.PHONY: format
format: ## gofmt finds nothing to change
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt these files:"; echo "$$out"; exit 1; fi; echo "gofmt: ok"

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...
	@if [ -e /usr/include/infiniband/verbs.h ]; then $(GO) vet -tags verbs ./... && echo "vet -tags verbs: ok"; \
	else echo "vet -tags verbs: not run: apt-get install libibverbs-dev librdmacm-dev"; fi

.PHONY: staticcheck
staticcheck: ## staticcheck
	$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION) ./...
	@if [ -e /usr/include/infiniband/verbs.h ]; then \
	$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION) -tags verbs ./... && echo "staticcheck -tags verbs: ok"; fi

.PHONY: cross
cross: ## every package compiles elsewhere, and without a C compiler
	CGO_ENABLED=0 $(GO) build ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...

.PHONY: unit
unit: ## the tests
	$(GO) test -count=1 -timeout 8m ./...

.PHONY: safe
safe: ## the rings once more, with atomic stores everywhere
	$(GO) test -count=1 -timeout 5m -tags novasafe ./ring ./internal/order

.PHONY: race
race: ## the race detector, over rings on the heap
	NOVA_TEST_LANES=local,tcp $(GO) test -race -short -count=1 -timeout 8m ./...

.PHONY: model
model: ## the checked models of the protocols: right ones hold, broken ones fail
	@./docs/model/run.sh

.PHONY: test-crash
test-crash: ## processes killed between any two steps: docs/crash.md
	$(GO) vet -tags failpoint ./internal/failpoint ./internal/crashtest
	$(GO) test -tags failpoint -count=1 -timeout 3m ./internal/failpoint ./internal/crashtest

.PHONY: test-hostile
test-hostile: ## hostile peers, with WORDS scribbled: part of test with fewer
	NOVA_SCRIBBLE_WORDS=$(WORDS) $(GO) test -v -count=1 -timeout 40m -run TestHostile ./conformance

.PHONY: fuzz
fuzz: ## each decoder, for FUZZTIME each
	@./scripts/fuzz.sh $(FUZZTIME)

.PHONY: torture
torture: ## 100,000 kills, and hostile peers that scribble 1e9 words
	@MAKE="$(MAKE)" ./scripts/each.sh kills test-hostile

.PHONY: kills
kills: ## KILLS kills over the lanes: what arrives, what is left (ARGS=--lane shm...)
	$(GO) run ./cmd/nova torture --kills $(KILLS) $(ARGS)

.PHONY: torture-short
torture-short: ## the same for TORTURETIME
	$(GO) run ./cmd/nova torture --duration $(TORTURETIME) $(ARGS)

.PHONY: soak
soak: ## SOAKTIME of streams that come and go: nothing grows
	$(GO) run ./cmd/nova torture --soak --duration $(SOAKTIME) $(ARGS)

.PHONY: test-rdma
test-rdma: ## on real verbs, in a guest with soft-RoCE (ARGS=PART...)
	@./scripts/rdma/test.sh $(ARGS)

.PHONY: bench-rdma
bench-rdma: ## the lane rdma next to perftest, in such a guest, and over soft next to tcp
	@./scripts/rdma/bench.sh $(ARGS)

.PHONY: rdma-shell
rdma-shell: ## a shell in such a guest
	@./scripts/rdma/packages.sh && ./scripts/rdma/guest.sh -t 86400 -s

.PHONY: bench
bench: ## benchmarks between two processes, paired with C
	$(GO) test -run '^$$' -bench . -benchtime 1x ./bench $(ARGS)

.PHONY: generate
generate: ## generate the protobuf code anew (needs protoc and protoc-gen-go)
	$(GO) generate ./...
