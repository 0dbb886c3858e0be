# `make demo`, `make test` and `make lint` set up everything they need in .venv; a second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard csrc/*) CMakeLists.txt

.PHONY: help setup demo test lint format clean
help:
	@echo "make demo   train the digits networks, print a table, save a picture"
	@echo "make test   run the test suite"
	@echo "make lint   ruff and pyright"

setup: $(STAMP)

# The pinned requirements first, so that the build needs no isolated environment; then the package, editable.
$(STAMP): pyproject.toml requirements/dev.lock $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/maqd demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
