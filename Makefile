# Each target sets up .venv first when it is missing or older than the lock file.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
READY_SLOW := .venv/.ready-slow
SOURCES := kernels models pipeline assets benchmarks docs tests

.PHONY: help setup setup-slow demo test test-slow check docs format ui clean

help:
	@echo "make setup      build .venv from requirements.lock"
	@echo "make demo       the whole job on a synthetic ICU cohort, table and report at the end"
	@echo "make test       fast tests;  make test-slow: browser, kill, S3 and ahead-of-time compilation tests"
	@echo "make check      format, lint, types, import rules, declared packages, docs"
	@echo "make docs       build the site of the documentation in site/, and check its links"
	@echo "make ui         open Dagster on http://127.0.0.1:3000; Ctrl-C ends it"

# pip compiles no module: 18 000 of them take over a minute, and a program compiles what it imports and keeps it.
setup: $(READY)

$(READY): requirements.lock pyproject.toml scripts/environment.sh
	@echo "Building .venv (about two minutes) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@grep -q scripts/environment.sh $(BIN)/activate || printf '\n. "$$VIRTUAL_ENV/../scripts/environment.sh"\n' >> $(BIN)/activate
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m kernels.selective_scan
	@touch $(READY)

# What make test-slow needs beside: browser driver, object storage, Ray, Kubernetes, notebooks. torch is not touched.
setup-slow: $(READY_SLOW)

$(READY_SLOW): requirements-slow.lock $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-slow.lock
	@touch $(READY_SLOW)

demo: $(READY)
	@. $(BIN)/activate && PYTHONDONTWRITEBYTECODE= python -m assets demo

# Bytecode is kept whatever the shell says, here and above: else each process compiles every module anew.
test: $(READY)
	@. $(BIN)/activate && PYTHONDONTWRITEBYTECODE= python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: $(READY)
	@$(MAKE) --no-print-directory setup-slow || echo "The extras cannot be installed: their tests are skipped."
	@command -v chromium > /dev/null || echo "No Chromium (Debian: apt-get install chromium): the browser test is skipped."
	@. $(BIN)/activate && python -m pytest -m "slow"

check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/deptry --no-ansi .
	@$(MAKE) --no-print-directory docs

# Strict: a link to nothing fails. Fetches nothing; pages open from the folder, the search needs a server.
docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "The documentation: site/index.html. With its search: $(BIN)/python -m http.server -b 127.0.0.1 -d site 8000"

format: $(READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

ui: $(READY)
	@. $(BIN)/activate && exec python -m assets ui

clean:
	rm -rf .venv .dagster artifacts
