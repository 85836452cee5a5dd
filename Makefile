# Two commands on a fresh clone: `make demo` and `make test`. Everything is installed into $(VENV), nothing outside it.
#
#   PYTHON=python3.12        another interpreter (3.10 to 3.13)
#   TORCH_INDEX=URL          an extra package index for torch: on Linux the default build of torch carries CUDA (several
#                            GB); https://download.pytorch.org/whl/cpu has the one without it
#   PYTEST_ARGS="-k recipe"  passed to pytest

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# One thread a process: the tests run in as many processes as there are cores. Nothing here may look for a hub.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all doctest lint audit format coverage wheel clean

help: ## the commands there are
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## forget people in a small model, judge it beside the retrained oracle, write a report
	$(BIN)/expunge demo

test: $(VENV)/.dev ## the fast tests: no network, no GPU
	$(PYTEST)

test-all: $(VENV)/.dev ## all tests that need no GPU, with the full counts
	$(PYTEST) -m "not gpu" --timeout 3600

doctest: $(VENV)/.dev ## the examples in docstrings and pages
	$(TEST_ENV) $(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' --ignore=src/expunge/rowkernel.py src docs README.md

lint: $(VENV)/.dev ## style, format, strict types, import layers, dependencies, security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry src
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

audit: $(VENV)/.dev ## known weaknesses of the pinned dependencies (needs the network; says so and passes over without)
	@$(BIN)/python -c 'import urllib.request; urllib.request.urlopen("https://pypi.org/simple/pip-audit/", timeout=20)' 2>/dev/null || { echo "audit passed over: no network"; exit 0; }; \
	$(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit \
	&& $(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

format: $(VENV)/.dev ## put the code into the house format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

coverage: $(VENV)/.dev ## the fast tests with line and branch coverage
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

wheel: $(VENV)/.dev ## a wheel in dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## remove what these commands made, the virtual environment included
	rm -rf $(VENV) dist build .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "expunge needs Python 3.10 to 3.13; this is " + sys.version.split()[0] + ". Say which one to use with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing expunge into $(VENV) (about a minute, 1.4 GB, once) ..."
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing expunge and its test tools into $(VENV) (about two minutes, 1.7 GB, once) ..."
	$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.runtime $@
