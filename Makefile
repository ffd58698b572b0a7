# `make demo` and `make test` do all the set-up they need: python3.11 and a C++20 compiler suffice.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements-installed
BENCH_STAMP := $(VENV)/.bench-requirements-installed
DOCS_STAMP := $(VENV)/.docs-requirements-installed

# Tests to leave out, as a pytest marker expression; MARKER="" runs all.
MARKER ?= not slow
# More arguments for pytest.
PYTEST_ARGS ?=
# Names of notebooks to execute; all unless given.
NOTEBOOKS ?=
# Arguments for the benchmarks: BENCH_ARGS="--write docs/benchmarks.md" puts the results there.
BENCH_ARGS ?=

CPP_FILES = $(shell find csrc -name '*.cpp' -o -name '*.h')

.DEFAULT_GOAL := help
.PHONY: help venv build demo notebooks test sanitize lint format bench docs wheel clean

help:
	@echo "make demo    run the quickstart (sets everything up first)"
	@echo "make notebooks  execute the notebooks of tutorials/ and keep their outputs"
	@echo "make test    run the tests (sets everything up first)"
	@echo "make sanitize  run the sweeps with every access to memory checked (builds once more)"
	@echo "make build   build the extension in place"
	@echo "make lint    check style and types; make format repairs style"
	@echo "make wheel   build a wheel and a source archive, and try the wheel in a fresh environment"
	@echo "make docs    make the site in build/docs, with a warning being an error"
	@echo "make bench   run the benchmarks (installs the peers first)"
	@echo "make clean   remove what was built"

# Installed again when the pinned versions change.
$(STAMP): requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

venv: $(STAMP)

# ninja knows what has to be compiled again, so always ask it.
build: $(STAMP)
	$(BIN)/python setup.py --quiet build_ext --inplace

demo: build
	$(BIN)/python -m tutorials.quickstart

notebooks: build
	$(BIN)/python -m tutorials.execute $(NOTEBOOKS)

test: build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest test -n 2 -q -m "$(MARKER)" $(PYTEST_ARGS)

# CHECKS="heap" checks the heap alone, and needs no build of its own.
CHECKS ?= address
sanitize: build
	.ci/sanitize $(CHECKS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

# The peers, which nothing else needs.
$(BENCH_STAMP): $(STAMP) requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

bench: build $(BENCH_STAMP)
	$(BIN)/python -W ignore -m benchmarks.suite $(BENCH_ARGS)

# What makes the site, which nothing else needs.
$(DOCS_STAMP): $(STAMP) requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

docs: build $(DOCS_STAMP)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

wheel: $(STAMP)
	.ci/wheel

clean:
	rm -rf build dist *.egg-info functorch_ext/*.so functorch_ext/_build_info.py
