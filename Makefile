# The one task runner. `make` alone says what there is.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
# How much of each long suite `make test-long` runs.
LONG ?=
FUZZ_WORKTREES ?= 170
KILL_POINTS ?= 36
DORMANT_WORKTREES ?= 2000
START_POINTS ?= 1000
DEATH_POINTS ?= 1000
WALK_PART ?= 1/1
DISCONNECTS ?= 1000
SERVICE_KILLS ?= 100
TREE_ROUNDS ?= 100
EXECUTIONS ?= 1000
FUZZ_EXAMPLES ?= 2000
FUZZ_ARCHIVES ?= 1500
DATABASE_KILLS ?= 20
CHAOS_SECONDS ?= 600
HISTORY_LIVES ?= 60
NODE_WORKSPACES ?= 300
ROLLING_ROUNDS ?= 20
WIRE_EXAMPLES ?= 200
LOAD_SECONDS ?= 300
# And how long the storm in `make test` is; 0 is none (decision 0027).
CHAOS_TEST_SECONDS ?= 25
# And how long the load.
LOAD_TEST_SECONDS ?= 30
PYTEST_WORKERS ?= 4
# Of the long suites; most have more than one process at work themselves.
LONG_WORKERS ?= 2
# In the order of the folders: what the files of one share, a worker makes once.
SPREAD := --dist loadfile --no-loadscope-reorder
# Images set it. Each of some hundred processes of the tests would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-long test-compose test-docker interop check lint types layers protos-check lowest bench protos docs docs-site console console-check dist artifacts lock clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready ## Make .venv with the `cove` command.

# pip's own progress is hidden; what goes wrong is not.
.venv/.ready: requirements.lock pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Cove needs Python 3.11 or later; set PYTHON=")'
	@test -x $(BIN)/python || { echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@echo "installing the locked requirements (about a minute the first time)"
	@$(BIN)/python $(PIP) --use-pep517 --require-hashes -r requirements.lock
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e sdk -e .
	@touch $@

demo: setup ## Start the suite, make a workspace, run, commit, push. REPOSITORY=path or URL.
	@$(BIN)/python scripts/demo.py $(REPOSITORY)

up: setup ## Start the suite and leave it running.
	@$(BIN)/cove up

test: setup ## Run every functional test (11 to 16 minutes on 2 cores).
	COVE_CHAOS_TEST_SECONDS=$(CHAOS_TEST_SECONDS) COVE_LOAD_TEST_SECONDS=$(LOAD_TEST_SECONDS) \
	  $(BIN)/pytest -m "not long and not docker and not interop" -n $(PYTEST_WORKERS) $(SPREAD)

test-long: setup ## Run the long suites: durability, chaos, attacks, fuzz, load. LONG=-k expression picks.
	COVE_FUZZ_WORKTREES=$(FUZZ_WORKTREES) COVE_KILL_POINTS=$(KILL_POINTS) \
	  COVE_DORMANT_WORKTREES=$(DORMANT_WORKTREES) COVE_START_POINTS=$(START_POINTS) \
	  COVE_DEATH_POINTS=$(DEATH_POINTS) COVE_WALK_PART=$(WALK_PART) \
	  COVE_DISCONNECTS=$(DISCONNECTS) COVE_SERVICE_KILLS=$(SERVICE_KILLS) \
	  COVE_TREE_ROUNDS=$(TREE_ROUNDS) COVE_EXECUTIONS=$(EXECUTIONS) \
	  COVE_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) COVE_FUZZ_ARCHIVES=$(FUZZ_ARCHIVES) \
	  COVE_DATABASE_KILLS=$(DATABASE_KILLS) \
	  COVE_CHAOS_SECONDS=$(CHAOS_SECONDS) COVE_HISTORY_LIVES=$(HISTORY_LIVES) \
	  COVE_NODE_WORKSPACES=$(NODE_WORKSPACES) COVE_ROLLING_ROUNDS=$(ROLLING_ROUNDS) \
	  COVE_WIRE_EXAMPLES=$(WIRE_EXAMPLES) COVE_LOAD_SECONDS=$(LOAD_SECONDS) \
	  $(BIN)/pytest -m "long and not docker" -n $(LONG_WORKERS) $(SPREAD) $(LONG) || test $$? -eq 5

test-compose: setup ## Run the suite in containers, for real; as root, about 6 minutes.
	@$(BIN)/python -m tests.compose

# Once more on an image with more in it: `pytest -m docker tests/drivers`. COVE_BASE_TAR saves debootstrap.
test-docker: setup ## Run the driver docker on an engine of its own; as root, about 3 minutes.
	$(BIN)/pytest -m "docker and not long" tests/docker tests/drivers

# Builds each with its own tools, into .build/interop; says which are missing. COVE_INTEROP=go,rust picks.
interop: setup ## Run the clients in other languages against a live suite that loses answers.
	$(BIN)/pytest -q -m interop tests/interop

check: lint types layers protos-check docs-site console-check lowest ## Check style, types, layers, protos, docs, the console and lowest versions.

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

protos-check: setup
	$(BIN)/python scripts/third_party_protos.py
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	$(BIN)/python scripts/check_breaking.py
	$(BIN)/python scripts/gen_protos.py --check
	$(BIN)/python scripts/gen_openapi.py --check

# The lowest versions that pyproject.toml promises, in an environment of their own.
lowest: .build/lowest/.ready
	.build/lowest/bin/python -m pytest -q -p no:cacheprovider -m "not long" -n $(PYTEST_WORKERS) $(SPREAD) \
	  tests/servicekit tests/registry tests/sdk

.build/lowest/.ready: requirements-lowest.lock pyproject.toml sdk/pyproject.toml
	@mkdir -p .build && rm -rf .build/lowest && $(PYTHON) -m venv .build/lowest
	@.build/lowest/bin/python $(PIP) --use-pep517 --require-hashes -r requirements-lowest.lock
	@.build/lowest/bin/python $(PIP) --no-deps --no-build-isolation -e sdk -e .
	@touch $@

bench: setup ## Print ratios to references measured in the same run.
	$(BIN)/python -m benchmarks

protos: setup ## Regenerate what is made of protos/: the stubs, openapi.json.
	$(BIN)/python scripts/third_party_protos.py
	$(BIN)/buf format -w protos
	$(BIN)/python scripts/gen_protos.py
	$(BIN)/python scripts/gen_openapi.py

docs: setup ## Regenerate docs/configuration.md and docs/errors.md, and what README.md shows of examples.
	$(BIN)/python scripts/gen_docs.py
	$(BIN)/python scripts/snippets.py

# Node.js is needed for the web console and for nothing else; what is built of it is in no commit.
console: ## Build the web console into .build/console; needs Node.js 20.19 or newer.
	@command -v npm > /dev/null || { echo "the web console is built with Node.js 20.19 or newer and its npm: none is found" >&2; exit 1; }
	@$(MAKE) --no-print-directory console/node_modules/.package-lock.json
	@cd console && npm run --silent build
	@echo "built .build/console; now \`cove up --console\`"

console-check: ## Check types and style of the web console, and its units.
	@if ! command -v npm > /dev/null; then echo "the web console is not checked: no npm is found"; \
	else $(MAKE) --no-print-directory console/node_modules/.package-lock.json && cd console && npm run --silent check; fi

console/node_modules/.package-lock.json: console/package-lock.json
	@cd console && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

docs-site: setup ## Make the pages a site, in .build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Both wheels, each tried in an environment that has never seen this checkout.
dist: setup ## Build both wheels into .build/dist, and try them; the web console is in where it was built.
	@rm -rf .build/dist .build/dist-sdk .build/dist-server gateway/console_files && mkdir -p .build/dist
	@if test -f .build/console/index.html; then cp -r .build/console gateway/console_files; else echo "without the web console: it was not built"; fi
	$(BIN)/python -m hatchling build -t wheel -d "$(CURDIR)/.build/dist"
	@rm -rf gateway/console_files
	cd sdk && ../$(BIN)/python -m hatchling build -t wheel -d "$(CURDIR)/.build/dist"
	@sed -n 's/^\([a-z0-9._-]*==[^ ;]*\).*/\1/p' requirements.lock > .build/dist-constraints.txt
	@for each in sdk server; do $(PYTHON) -m venv .build/dist-$$each; done
	@.build/dist-sdk/bin/python $(PIP) -c .build/dist-constraints.txt .build/dist/cove-[0-9]*.whl
	.build/dist-sdk/bin/cove --version
	@.build/dist-server/bin/python $(PIP) -c .build/dist-constraints.txt .build/dist/*.whl
	@rm -rf .build/dist-app && git clone --quiet --bare . .build/dist-app
	.build/dist-server/bin/python scripts/demo.py .build/dist-app

artifacts: setup ## Write protos, descriptors, OpenAPI and a layout for buf into .build/artifacts.
	$(BIN)/python scripts/artifacts.py

# No index address is written, so that every mirror serves.
COMPILE := .build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-package cove pyproject.toml sdk/pyproject.toml
EVERYTHING := --extra dagger --extra docker --extra mcp --extra otel --extra postgres --extra uvloop --group dev
lock: ## Resolve the requirements anew.
	@test -x .build/uv/bin/uv || { $(PYTHON) -m venv .build/uv && .build/uv/bin/pip install --quiet uv; }
	$(COMPILE) $(EVERYTHING) --upgrade -o requirements.lock > /dev/null
	$(COMPILE) $(EVERYTHING) --resolution lowest-direct -o requirements-lowest.lock > /dev/null
	$(COMPILE) --extra docker --extra otel --extra postgres --extra uvloop --group build -c requirements.lock -o requirements-server.lock > /dev/null
	.build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate -c requirements.lock -o requirements-dagger.lock deploy/dagger/requirements.in > /dev/null
	.build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate -c requirements.lock -o examples/python/requirements.lock examples/python/requirements.in > /dev/null

clean: ## Remove what was built; never touches a state directory.
	rm -rf .venv .build .pytest_cache .mypy_cache .ruff_cache console/node_modules examples/typescript/node_modules
