# What people and CI run. `make` alone says what there is.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 20000
ROUNDS ?= 50
WORKERS ?= 2
# `make lock UPGRADE=--upgrade` takes the newest versions, `UPGRADE='--upgrade-package ruff'` one.
UPGRADE ?=

# Stamps: the environment is made anew when what it holds changes, and at no other time.
REQUIREMENTS := $(VENV)/.requirements
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
SOURCES := $(shell find src -name '*.py' 2>/dev/null)
CONTRACT_TESTS = $(wildcard tests/test_tidy.py tests/test_docs.py)

# The first Python on the path that is new enough, unless PYTHON names one.
define find_python
set -e; found=; \
for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		found=$$candidate; break; \
	fi; \
done; \
if [ -z "$$found" ]; then \
	echo "Trunkline needs Python 3.11 or newer; none is on the path$(if $(PYTHON), as $(PYTHON))." >&2; \
	echo "Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; \
	exit 1; \
fi; \
if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$found has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; \
	exit 1; \
fi
endef

# Nothing but the hashed files says what is installed, whatever this machine's pip is set to.
PIP := env -u PIP_FIND_LINKS -u PIP_REQUIRE_VIRTUALENV $(BIN)/python -m pip \
	--disable-pip-version-check --quiet

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(COMPILED) ## make .venv with the trunkline command in it, once

# The stamp is a copy of what was installed: a file that only looks newer costs nothing.
$(REQUIREMENTS): requirements/dev.txt
	@if cmp -s $< $@; then touch $@; exit; fi; \
	$(find_python); echo "setup: $(VENV) with $$($$found --version), from pinned and hashed wheels"; \
	rm -rf $(VENV); $$found -m venv $(VENV); \
	$(PIP) install --require-hashes --only-binary :all: --no-deps --requirement $<; \
	cp $< $@

$(INSTALLED): pyproject.toml $(REQUIREMENTS)
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

# Compiled ahead, so that a command starts fast even where Python may not write next to the source.
$(COMPILED): $(INSTALLED) $(SOURCES)
	@$(BIN)/python -m compileall -q src
	@touch $@

.PHONY: run
run: setup ## start a server, load real conversations, pull its plug twice, print the verdict
	@exec $(BIN)/trunkline demo

.PHONY: test
test: setup ## the whole suite, on real servers that are started for it
	@deploy/local/cluster.sh with $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: cluster-up
cluster-up: ## install and start Redis, two MariaDB and HBase, as deploy/cluster.toml names them
	@deploy/local/cluster.sh up

.PHONY: cluster-down
cluster-down: ## stop them; what they hold stays in .cluster/
	@deploy/local/cluster.sh down

.PHONY: check
check: setup ## format, lint, types, layering, and the tests that hold source and docs to their rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(if $(CONTRACT_TESTS),$(BIN)/python -m pytest $(CONTRACT_TESTS))

.PHONY: format
format: setup ## format the source and mend what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: fault
fault: setup ## kills, wipes, lost messages and, as root, power cuts under load; all of them with ROUNDS=100 (50)
	@deploy/local/cluster.sh with $(BIN)/python -m pytest tests/fault --rounds $(ROUNDS) --timeout 3600 \
		$(if $(filter 0,$(shell id -u)),--power-cuts)

.PHONY: simulate
simulate: setup ## the deterministic simulation over SEEDS seeds (20000)
	$(BIN)/python -m trunkline.testing.simulation --seeds $(SEEDS)

.PHONY: bench
bench: setup ## the scenarios, and the floor that they are measured against
	bench/run

LOCK := env -u PIP_FIND_LINKS -u UV_FIND_LINKS -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL \
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --no-config \
	--generate-hashes --universal --python-version 3.11 --only-binary :all: $(UPGRADE)

.PHONY: lock
lock: setup ## pin and hash what pyproject.toml and requirements/dev.in ask for
	$(LOCK) pyproject.toml --output-file requirements/base.txt
	$(LOCK) pyproject.toml --extra cluster --extra testing requirements/dev.in --constraints requirements/base.txt \
		--output-file requirements/dev.txt

.PHONY: clean
clean: ## remove the environment and every cache
	rm -rf $(VENV) bench/build build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
