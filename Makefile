# Every target sets up what it needs: a virtual environment in .venv, filled again only when pyproject.toml changed.
# Variables: PYTHON (which interpreter makes .venv), WORKERS (pytest processes), ARGS (passed on to demo and test),
# STEPS, RUNS and SEED (of simulate), EXTRAS (of wheels).

PYTHON  ?= python3
WORKERS ?= 3
ARGS    ?=
STEPS   ?= 2000
RUNS    ?= 20

VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
SHELL  := /bin/bash
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
DEMO   := $(VENV)/.installed-demo
DEV    := $(VENV)/.installed-dev
PEERS  := $(VENV)/.installed-peers
CODE   := vectorlake connectors jobs tests benchmarks examples

.DEFAULT_GOAL := help
.PHONY: help demo test wheels simulate check lint format bench clean distclean
.DELETE_ON_ERROR:

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

demo: $(DEMO) ## Take a real Iceberg table to a searchable vector lake, step by step
	@$(BIN)/vectorlake demo $(ARGS)

test: $(DEV) ## Run all tests
	@$(PY) -m pytest -n $(WORKERS) $(ARGS)

wheels: $(DEV) ## Install the wheel with each extra alone, and run a session: EXTRAS names some
	@$(PY) tests/wheel/check.py $(EXTRAS)

simulate: $(DEV) ## Run the simulation for long: STEPS a seed, SEED for one, RUNS fresh seeds
	@for run in $$(seq $(RUNS)); do \
	  VECTORLAKE_STEPS=$(STEPS) VECTORLAKE_SEED=$${SEED:-$$RANDOM$$RANDOM} \
	  $(PY) -m pytest -q -n 0 tests/simulation/test_world.py || exit 1; \
	done

check: lint test ## Run everything that a change must pass: lint, types, import rules, tests

lint: $(DEV) ## Check style, types and import rules
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@PYTHONPATH=connectors:jobs $(BIN)/lint-imports

format: $(DEV) ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix-only $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(PEERS) ## Run every benchmark, one after another
	@failed=; for script in benchmarks/[!_]*.py; do \
	  [ -e "$$script" ] || { echo "no benchmarks yet"; break; }; \
	  echo "== $$script"; $(PY) "$$script" || failed="$$failed $$script"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

clean: ## Remove caches and what the demo and builds left
	@rm -rf build dist demo-lake .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Also remove the virtual environment
	@rm -rf $(VENV)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "vectorlake needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | tail -1)." >&2; \
	  echo "Name another interpreter, for instance: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Could not make $(VENV): '$(PYTHON)' needs its venv module (on Debian and Ubuntu: python3-venv)." >&2; exit 1; }

$(DEMO): pyproject.toml | $(PY)
	@echo "installing vectorlake[demo] into $(VENV) ..."
	@$(PIP) install -e '.[demo]'
	@touch $@

# What the tests need includes what the demo needs.
$(DEV): pyproject.toml | $(PY)
	@echo "installing vectorlake[dev,bench] into $(VENV) ..."
	@$(PIP) install -e '.[dev,bench]'
	@touch $(DEMO) $@

# A peer that this system can't install is left out: the benchmarks say so.
$(PEERS): $(DEV)
	@echo "installing vectorlake[peers] into $(VENV) ..."
	@$(PIP) install -e '.[peers]' || echo "some peers could not be installed and will be skipped" >&2
	@touch $@
