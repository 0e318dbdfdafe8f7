# Daily work. `make book` and `make test` are all that a newcomer needs.

PYTHON  ?= python3
PROFILE ?= quick
ONLY    ?=
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready

# OpenMP threads that wait must not spin: beside another process, tests took many times longer.
export OMP_WAIT_POLICY ?= passive

.PHONY: help install book test lint faults clean

help:
	@echo "make book     install, execute the notebooks, build and check _build/html/index.html"
	@echo "              (PROFILE=quick, gpu or paper; quick is the default; ONLY=04,05: a draft)"
	@echo "make test     install, run the default test suite (ARGS='-k grid' to choose)"
	@echo "make faults   kill, starve and damage every command that writes (PROFILE=gpu for all of it)"
	@echo "make lint     ruff (lint, format) and mypy"
	@echo "make install  .venv with every locked version, this checkout in editable form"
	@echo "make clean    remove what was built; .venv stays"

install: $(READY)

# The stamp makes a second call instant, until requirements.lock or pyproject.toml change.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "medil-book needs Python 3.11 to 3.13; say which with PYTHON=python3.12" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) \
	  || $(PYTHON) -m virtualenv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $(READY)

book: $(READY)
	@$(BIN)/medil book --profile $(PROFILE) --only "$(ONLY)"

test: $(READY)
	@$(BIN)/python -m pytest $(ARGS)

faults: $(READY)
	@$(BIN)/python -m eval.reliability --profile $(PROFILE)

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .mypy_cache
