# `make` prints the targets. Everything runs in .venv, which `make env` builds from requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env quickstart test test-slow lint format docs ui clean
MAKEFLAGS += --no-print-directory

# The interpreter that makes .venv (once); the lock is for Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Processes that `make test` uses, one thread each.
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Further arguments for pytest: make test ARGS="-k loop -x"
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
# -qq: errors only. Bytecode is compiled afterwards, on all cores; without it each start would cost seconds.
PIP := $(PY) -m pip -qq --disable-pip-version-check --no-input install --no-compile
# .venv is up to date while the lock, pyproject.toml and the place of this checkout are those it was made for.
STAMP := $(VENV)/.ready-$(shell { cat requirements.lock pyproject.toml; echo "$(CURDIR)"; } | cksum | tr -c '0-9\n' '-')
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) --dist worksteal

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## create or update .venv from requirements.lock
	@$(if $(filter env,$(MAKECMDGOALS)),echo "Ready: $(VENV)",:)

$(STAMP):
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "make env: '$(PYTHON)' is not a Python of at least 3.11; name one: make env PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "Creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); fi
	@rm -f $(VENV)/.ready-*
	@echo "Installing $$(grep -c '^[a-z].*==' requirements.lock) packages from requirements.lock (a minute or two, 2 GB; later calls find it done)"
	@$(PIP) --upgrade 'pip>=25' || true  # twice as fast as the one that Python 3.11 brings; not needed
	@$(PIP) --no-deps -r requirements.lock
	@if ! $(PY) -c 'import torch' 2>/dev/null; then \
	  echo "This torch is a build that needs libraries of its own (CUDA); installing them: see requirements.lock for the alternative"; \
	  $(PIP) -c requirements.lock "$$(grep '^torch==' requirements.lock)"; \
	  $(PY) -c 'import torch'; fi
	@rm -rf kdexp.egg-info  # of an older version, which would be found before what is installed now
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(PY) -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null 2>&1 || true  # templates among them do not compile
	@touch $(STAMP)

quickstart: env ## a first study on real text: its table, figure and verdicts (within 5 minutes on 2 cores)
	@$(PY) -m kdexp +experiment=quickstart
	@$(PY) -m analysis.studies.quickstart
	@$(PY) -m kdexp keep quickstart
	@echo
	@echo "Tables       multirun/quickstart/tables/    (Markdown, CSV, LaTeX)"
	@echo "Figure       multirun/quickstart/figures/"
	@echo "Runs         multirun/quickstart/*/         (result.json, metrics, log, config)"
	@echo "Tracking UI  make ui"

test: env ## the test suite but its slow part; JOBS=n processes, ARGS="-k name" to choose
	@$(PYTEST) $(ARGS)

test-slow: env ## the slow tests (minutes)
	@$(PYTEST) -m slow $(ARGS)

lint: env ## ruff (rules and format), mypy, and the layers of imports (import-linter)
	@status=0; \
	$(PY) -m ruff check --output-format concise . || status=1; \
	$(PY) -m ruff format --check --output-format concise . || status=1; \
	$(PY) -m mypy || status=1; \
	$(VENV)/bin/lint-imports --no-logo || status=1; \
	exit $$status

format: env ## let ruff rewrite what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

# An environment of its own, so that nobody needs it who only runs kdexp; kdexp itself is read, not imported.
docs: ## the documentation as a site in site/, built strictly (docs/requirements.lock)
	@if ! cmp -s docs/requirements.lock .venv-docs/.ready; then \
	  $(PYTHON) -m venv --clear .venv-docs; \
	  .venv-docs/bin/python -m pip -qq --disable-pip-version-check --no-input install --no-deps -r docs/requirements.lock; \
	  cp docs/requirements.lock .venv-docs/.ready; fi
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --quiet --strict
	@echo "Open site/index.html"

ui: env ## open the tracking UI on this machine
	@$(PY) -m kdexp.tracking ui

clean: ## remove caches and build leftovers; .venv and multirun/ stay
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@rm -rf site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
