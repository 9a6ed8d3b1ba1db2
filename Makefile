# Two commands do everything: `make run` starts a living node, `make test` runs what CI runs.
# Needs only make and Python 3.11 or newer; the virtual environment is made here.
PYTHON ?= python3
# What is compiled is kept: hundreds of processes load it.
unexport PYTHONDONTWRITEBYTECODE
VENV   := .venv
BIN    := $(VENV)/bin
# EXAMPLE=0 starts the node with this machine's telemetry alone, without the web service of examples/01_web_service.
EXAMPLE ?= 1

.DEFAULT_GOAL := help
.PHONY: help run test lint page page-check packages compiled requirements clean

help:
	@echo "make run           start a node with live telemetry and a page (EXAMPLE=0: without the web service)"
	@echo "make test          everything that CI runs: lint, types, layers, page, tests"
	@echo "make lint          ruff, mypy, import-linter"
	@echo "make page          build the page again (web/ into src/polaris/dashboard/static)"
	@echo "make requirements  pin the requirements again"
	@echo "make clean         remove the virtual environment and caches"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "POLARIS needs Python 3.11 or newer; call: make PYTHON=python3.12 ..." >&2; exit 69; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 69; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-run: requirements/build.txt requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing POLARIS into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed-run
	@echo "Installing the development tools into $(VENV) ..."
	@# Most of it is never loaded; what is, is compiled then.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	@touch $@

run: $(VENV)/.installed-run
ifeq ($(EXAMPLE),0)
	@POLARIS_LOGGING__CONSOLE_LEVEL=$${POLARIS_LOGGING__CONSOLE_LEVEL:-warning} exec $(BIN)/polaris run
else
	@exec $(BIN)/python examples/01_web_service/demo.py
endif

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

page-check: $(VENV)/.installed-dev
	$(BIN)/python tools/build_page.py --check

# Once, not in each of the hundreds of processes that the tests start; the tests themselves with their rewritten asserts.
compiled: $(VENV)/.installed-dev
	@$(BIN)/python -m compileall -q src
	@$(BIN)/pytest --collect-only -qq -p no:randomly >/dev/null

# Programs of the system, while the virtual environment is being filled.
packages:
	@tools/debian-packages

test:
	@$(MAKE) --no-print-directory --jobs 2 $(VENV)/.installed-dev packages
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint page-check compiled
	@# Tests wait about half of their time: for servers that are frozen, for what must not come.
	$(BIN)/pytest --numprocesses 4 --dist loadgroup --durations 15

page: $(VENV)/.installed-dev
	$(BIN)/python tools/build_page.py

requirements:
	tools/pin-requirements

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache web/node_modules tests/interop/node_modules
