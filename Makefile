# make demo: the main job shown with real requests.  make test: everything that must hold.
# Quick when repeated: stamps in .venv say what is installed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
CLANG  ?= clang
# Debian keeps asm/types.h in a directory of the machine's architecture.
BPF_INCLUDE := $(addprefix -I,$(wildcard /usr/include/$(shell uname -m)-linux-gnu))

.PHONY: demo test lint unit wheel redirector clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@$(BIN)/sluicegate demo

test: lint
	@$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# What needs neither sockets of its own nor root: quick, for between edits.
unit: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest tests/unit

wheel: $(VENV)/.installed
	@$(PIP) wheel --no-deps --wheel-dir dist .

# The eBPF redirector as one object for every Linux kernel. Needs clang and libbpf's headers:
# apt-get install clang libbpf-dev
redirector: build/redirector/connect_redirect.bpf.o

build/redirector/connect_redirect.bpf.o: $(wildcard deploy/redirector/*.h) deploy/redirector/connect_redirect.bpf.c
	@mkdir -p $(@D)
	@$(CLANG) -O2 -g -Wall -Werror -target bpf $(BPF_INCLUDE) -c deploy/redirector/connect_redirect.bpf.c -o $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (once)"
	@$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) with what the tests need (once)"
	@$(PIP) install -e '.[dev]'
	@touch $(VENV)/.installed $@
