# Daily work. `make book` and `make test` are all that a newcomer needs.

PYTHON  ?= python3
PROFILE ?= quick
ONLY    ?=
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
CHECKS  := _build/supply-chain

# OpenMP threads that wait must not spin: beside another process, tests took many times longer.
export OMP_WAIT_POLICY ?= passive

.PHONY: help install book pdf elsewhere dist test coverage lint faults fuzz sbom audit clean

help:
	@echo "make book     install, execute the notebooks, build and check _build/html/index.html"
	@echo "              (PROFILE=quick, gpu or paper; quick is the default; ONLY=04,05: a draft)"
	@echo "make pdf      the book, then one PDF of it, in Chromium: _build/html/medil-book.pdf"
	@echo "make elsewhere  every downloaded notebook in a bare environment"
	@echo "make dist     wheel and source archive of the last commit, tried in a bare environment"
	@echo "make test     install, run the default test suite (ARGS='-k grid' to choose)"
	@echo "make coverage the same and the slow ones, and which lines and branches none of them reached"
	@echo "make faults   kill, starve and damage every command that writes (PROFILE=gpu for all of it)"
	@echo "make fuzz     give every reader odd bytes, guided by coverage (needs the extra fuzz)"
	@echo "make lint     ruff (lint, format) and mypy"
	@echo "make sbom     every locked package as CycloneDX, in _build/sbom.json"
	@echo "make audit    known vulnerabilities of the locked packages; needs a network"
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

pdf: $(READY)
	@$(BIN)/python -m doit pdf

elsewhere: $(READY)
	@$(BIN)/python -m eval.gates.elsewhere

dist: $(READY)
	@$(BIN)/python -m eval.gates.package --keep dist

test: $(READY)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

# Timings say nothing while every line is counted, so tests that bound them may fail here.
coverage: $(READY)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
	  -m "not gpu and not network and not notebook" --cov --cov-report=term $(ARGS)

faults: $(READY)
	@$(BIN)/python -m eval.reliability --profile $(PROFILE)

fuzz: $(READY)
	@$(BIN)/python -m eval.fuzz --profile $(PROFILE)

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# Tools that look at the lock file, in an environment of their own.
$(CHECKS)/.ready: Makefile
	@$(PYTHON) -m venv --clear $(CHECKS) || $(PYTHON) -m virtualenv --clear $(CHECKS)
	@$(CHECKS)/bin/python -m pip install --quiet --disable-pip-version-check \
	  cyclonedx-bom==7.5.0 pip-audit==2.10.1 \
	  || { echo "The tools could not be installed; this needs a package index." >&2; exit 1; }
	@touch $@

sbom: $(CHECKS)/.ready
	@$(CHECKS)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
	  --output-reproducible --validate -o _build/sbom.json
	@echo "The bill of materials is at $(CURDIR)/_build/sbom.json"

audit: $(CHECKS)/.ready
	@$(CHECKS)/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip \
	  --progress-spinner off \
	  || { echo "A version is vulnerable, or could not be looked up without a network: see above." >&2; exit 1; }

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .mypy_cache
