# Run `make help` for the targets. Everything runs in .venv, made on first use with PYTHON (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ADDONS_VENV ?= .venv-addons
ADDONS_INSTALLED := $(ADDONS_VENV)/.installed
# TensorFlow Addons needs TensorFlow 2.15, which needs Python 3.10 or 3.11. Empty if neither is installed.
ADDONS_PYTHON ?= $(shell for python in python3.11 python3.10 $(PYTHON); do \
	$$python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' 2>/dev/null && echo $$python && break; done)
CODE := vswin train.py evaluate.py tests benchmarks docs
ARGS ?=
# The tests whose results may depend on TensorFlow 2.15 or on the oldest supported NumPy and OpenCV, and one slow test: a
# whole run, which starts first.
ADDONS_TESTS := tests/test_end_to_end.py tests/tools/test_export.py \
	$(patsubst %,tests/training/test_%.py,trainer run ema groups mirrored optimizer addons_optimizer mixing checkpoints \
	callbacks loggers loss multi_label monitor) tests/models tests/parity tests/evaluation/test_run.py tests/test_invariants.py \
	$(patsubst %,tests/weights/test_%.py,saved_model checkpoint build files names) \
	tests/data/test_pipeline.py tests/data/test_decode.py tests/data/test_segments.py tests/tools/test_selftest.py
ADDONS_CHOICE := --no-loadscope-reorder -m "" -k "not slow or told_apart"

.DEFAULT_GOAL := help
.PHONY: help install train evaluate format lint types test-fast test test-slow \
	install-addons test-addons test-matrix fuzz peers wheel docs clean

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

format: $(INSTALLED)  ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lint: $(INSTALLED)  ## check style with ruff
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(INSTALLED)  ## check types with mypy
	$(BIN)/mypy vswin train.py evaluate.py

test-fast: $(INSTALLED)  ## only the fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test: lint types test-fast  ## lint, types and the fast tests: about 9 minutes on 2 cores

test-slow: $(INSTALLED)  ## whole runs, kills, several processes: about 30 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --durations 20 $(ARGS)

install-addons: $(ADDONS_INSTALLED)  ## create .venv-addons, for optimizer=adamw_addons: TensorFlow 2.15 with Addons

$(ADDONS_INSTALLED): pyproject.toml constraints-addons.txt
	@[ -n "$(ADDONS_PYTHON)" ] || { echo "TensorFlow Addons needs Python 3.10 or 3.11, and there is none;" \
		"install one, and name it if it is not found: make install-addons ADDONS_PYTHON=/path/to/python3.11"; exit 1; }
	$(ADDONS_PYTHON) -m venv $(ADDONS_VENV)
	$(ADDONS_VENV)/bin/python -m pip install --quiet --constraint constraints-addons.txt --editable '.[addons,test]'
	@touch $@

ifeq ($(ADDONS_PYTHON),)
test-addons:
	@echo "left out, as there is no Python 3.10 or 3.11: make test-addons"
else
test-addons: $(ADDONS_INSTALLED)  ## the fast tests that TensorFlow 2.15 may change, and a whole run, in .venv-addons
	$(ADDONS_VENV)/bin/python -m pytest -n 2 --dist loadfile $(or $(ARGS),$(ADDONS_CHOICE) $(ADDONS_TESTS))
endif

test-matrix:  ## the fast tests with Python 3.10, 3.12 and 3.13, if installed
	@for version in 3.10 3.12 3.13; do \
		if python$$version --version 2>/dev/null; \
		then $(MAKE) test-fast PYTHON=python$$version VENV=.venv-$$version || exit 1; \
		else echo "left out: there is no python$$version"; fi; \
	done

fuzz: $(INSTALLED)  ## read damaged files (ARGS="--minutes 30"), see tests/fuzz/README.md
	$(BIN)/python tests/fuzz/fuzz.py $(ARGS)

peers: $(INSTALLED)  ## create .venv-peers, for benchmarks/peers (ARGS="keras_cv decord"; default: all, 9 GB)
	$(BIN)/python benchmarks/peers/install.py $(ARGS)

wheel: $(INSTALLED)  ## build dist/vswin-*.whl and the source distribution
	$(BIN)/python -m build

docs: $(INSTALLED)  ## build the documentation as a site, dist/site/index.html
	$(BIN)/python -m mkdocs build --strict

clean:  ## remove all environments (.venv*), dist and caches; keep data and outputs
	rm -rf $(VENV) .venv-* dist .pytest_cache .ruff_cache .mypy_cache
