# Run `make help` for the targets. Everything runs in .venv, made on first use with PYTHON (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := vswin train.py evaluate.py tests benchmarks
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train evaluate format lint types test-fast test test-slow wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

install: $(INSTALLED)  ## create .venv with vswin and everything its tests need

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: $(INSTALLED)  ## train (ARGS="model=swin_tiny dataset=folder ..."; default: swin_micro on motion)
	$(BIN)/python train.py $(ARGS)

evaluate: $(INSTALLED)  ## evaluate (ARGS="run=outputs/...")
	$(BIN)/python evaluate.py $(ARGS)

format: $(INSTALLED)  ## format the code and mend what ruff can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lint: $(INSTALLED)  ## check style with ruff
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(INSTALLED)  ## check types with mypy
	$(BIN)/mypy vswin train.py evaluate.py

test-fast: $(INSTALLED)  ## the fast tests alone
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test: lint types test-fast  ## lint, types and the fast tests: under 10 minutes on 2 cores

test-slow: $(INSTALLED)  ## whole runs, kills, several processes: under 45 minutes on 2 cores
	$(BIN)/python -m pytest -m slow --durations 10 $(ARGS)

wheel: $(INSTALLED)  ## build dist/vswin-*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove .venv, dist and caches; data and outputs stay
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .mypy_cache
