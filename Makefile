# Two commands on a fresh machine with Python >= 3.11 and make:
#     make demo    sets up, smooths real data and shows the result
#     make test    sets up and runs all tests
# Also: make check (lint, format, types, tests), make bench, make docs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# setuptools has ten lines of warning for every editable installation; nothing here is to be done about it.
PIP := PYTHONWARNINGS=ignore::UserWarning $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# What the tests run beside the core; `make test EXTRAS=` tests the core alone.
EXTRAS ?= [weights,plot,dask]

.PHONY: demo test lint check bench docs clean

demo: $(VENV)/ready
	$(BIN)/ema-smooth sample_data/co2.csv --alpha 0.1 --residual --digits 3 -v -o $(VENV)/co2.csv
	@head -n 12 $(VENV)/co2.csv
	@echo "…"
	@echo "To go on:  . $(BIN)/activate  and then  ema-smooth --help  or any command of README.md"

test: $(VENV)/ready-to-test
	$(BIN)/python -m pytest

lint: $(VENV)/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: $(VENV)/ready-to-test
	$(BIN)/python benchmarks/run.py

docs: $(VENV)/ready-to-test
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/ready: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/ready-to-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.$(EXTRAS)' --group test --group lint
	touch $(VENV)/ready $@
