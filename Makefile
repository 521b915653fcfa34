# Two commands on a fresh machine with Python >= 3.11 and make:
#     make demo    sets up, smooths real data and shows the result
#     make test    sets up and runs all tests
# Also: make check (lint, format, types, tests), make bench, make docs, make packages; and for the suite in other
# conditions make test-lowest, test-newest, test-core, test-systems, test-torch; make torture takes an hour.

PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CONSTRAINTS ?= constraints.txt
# What the tests run beside the core; `make test EXTRAS=` tests the core alone.
EXTRAS ?= [weights,plot,dask]
# Tests run in as many processes as there are processors; TESTS=-x and the like are added.
PYTEST := $(BIN)/python -m pytest -n auto
TESTS ?=

.PHONY: demo test test-lowest test-newest test-core test-systems test-torch torture lint check bench docs site packages clean

demo: $(VENV)/ready
	$(BIN)/ema-smooth sample_data/co2.csv --alpha 0.1 --residual --digits 3 -v -o $(VENV)/co2.csv
	@head -n 12 $(VENV)/co2.csv
	@echo "…"
	@echo "To go on:  . $(BIN)/activate  and then  ema-smooth --help  or any command of README.md"

test: $(VENV)/ready-to-test
	$(PYTEST) $(TESTS)

# The lowest versions that are declared, the newest that there are, and nothing that is optional, each in an
# environment of its own.
test-lowest:
	$(MAKE) test VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt TESTS="-m 'not slow' $(TESTS)"

test-newest:
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=/dev/null TESTS="-m 'not slow' $(TESTS)"

test-core:
	$(MAKE) test VENV=.venv-core EXTRAS= TESTS="-m 'not slow' $(TESTS)"

# The commands on a simulated Windows and a simulated macOS: tests/systems/site takes away what is not there.
test-systems: $(VENV)/ready-to-test
	EMA_SYSTEM=windows $(PYTEST) tests/golden tests/systems tests/run/test_folder.py $(TESTS)
	EMA_SYSTEM=darwin $(PYTEST) tests/golden tests/systems tests/run/test_folder.py $(TESTS)

# torch is no dependency, and large; with it the callbacks are tested with the real libraries.
test-torch: $(VENV)/torch
	$(PYTEST) -m torch $(TESTS)

torture: $(VENV)/ready-to-test
	$(BIN)/python tests/torture.py

lint: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: $(VENV)/ready-to-test
	$(BIN)/python benchmarks/run.py

# Reference, manual pages, completion and pictures from the commands; then the site, which stops at a dead link.
docs: $(VENV)/ready-to-test
	$(BIN)/python docs/build.py
	$(BIN)/python docs/site.py

site: $(VENV)/ready-to-test
	$(BIN)/python docs/site.py

# The wheel is built from the sdist, as an installer does it.
packages: $(VENV)/ready-to-test
	rm -rf dist build/sdist
	$(BIN)/python -m hatchling build -t sdist -d dist
	mkdir -p build/sdist && tar xzf dist/*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && $(abspath $(BIN))/python -m hatchling build -t wheel -d $(abspath dist)
	$(BIN)/python -m pytest tests/packages

clean:
	rm -rf .venv .venv-* build dist *.egg-info

$(VENV)/bin/python $(VENV)/Scripts/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade 'pip>=25.1' # which knows dependency groups

$(VENV)/ready: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(INSTALL) --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/ready-to-test: $(BIN)/python pyproject.toml $(CONSTRAINTS)
	$(INSTALL) --constraint $(CONSTRAINTS) --editable '.$(EXTRAS)' --group test --group lint --group docs
	touch $(VENV)/ready $@

$(VENV)/torch: $(VENV)/ready-to-test
	$(INSTALL) torch==2.13.0 lightning==2.6.6 transformers==5.24.0 accelerate==1.15.0 scikit-learn
	touch $@
