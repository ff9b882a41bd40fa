# Everything works from a clean clone: each target first brings the environment in .venv up to date.
SHELL := /bin/bash
.DEFAULT_GOAL := help
READY := build/ready
BIN := .venv/bin
TSC := build/npm/node_modules/.bin/tsc

.PHONY: help
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml requirements.lock scripts/setup
	@scripts/setup
	@mkdir -p build && touch $@

.PHONY: setup
setup: $(READY) ## install what weft and its tests need

.PHONY: demo
demo: $(READY) ## run the shop in a mesh; Ctrl-C ends it and leaves nothing behind
	@$(BIN)/weft demo $(ARGS)

build/tools: scripts/setup
	@scripts/setup --tests
	@mkdir -p build && touch $@

.PHONY: test
test: $(READY) build/tools lint ## every check: lint, types, floors, unit, golden, envoy, e2e
	@scripts/test

.PHONY: lint
lint: $(READY) ## ruff, mypy --strict, import contracts, types of the dashboard's scripts
	@$(BIN)/ruff check --no-cache .  # its cache does not notice that a package became ours
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m weft.protos.stubs
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@[ ! -x $(TSC) ] || $(TSC) --project src/weft/dashboard/jsconfig.json

.PHONY: unit
unit: $(READY) ## the fast tests only
	@$(BIN)/pytest tests/unit -n 2 -q

.PHONY: golden
golden: $(READY) ## rewrite tests/golden/*/out.yaml; the diff is the review
	@$(BIN)/pytest tests/golden --update-golden -q

.PHONY: bench
bench: $(READY) ## measure; results go to bench/results
	@$(BIN)/python bench/run.py $(ARGS)

.PHONY: bench-telemetry
bench-telemetry: $(READY) ## measure what telemetry costs and how quick it is; ten minutes
	@$(BIN)/python bench/telemetry_all.py

.PHONY: docs
docs: $(READY) ## regenerate docs/reference from the models and the commands
	@$(BIN)/python -m scripts.reference $(ARGS)

.PHONY: lock
lock: ## resolve requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --all-extras --group dev --no-emit-index-url \
		--no-header pyproject.toml -o requirements.lock

.PHONY: clean
clean: ## remove what make built
	@rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
