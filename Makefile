# Two commands: `make demo` shows the engine at work, `make test` proves it. Both set up .venv first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test setup python-check

help:
	@echo "make demo   tag the embedded pictures with the embedded model and show the result"
	@echo "make test   lint, format check, type check and all tests"

python-check:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "tai-engine needs Python 3.11 or newer, and '$(PYTHON)' was not found: install it or name it (make PYTHON=python3.12 ...)." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tai-engine needs Python 3.11 or newer, but '$(PYTHON)' is `$(PYTHON) -V 2>&1`: name a newer one (make PYTHON=python3.12 ...)." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: install it (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 2; }

# The stamp carries the checkout's folder, so that an environment that is shared between checkouts is linked to the present one.
$(VENV)/.dependencies: pyproject.toml | python-check
	@echo "Setting up $(VENV) (about 7 GB with PyTorch's CUDA build, a few minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@echo "$(CURDIR)" > $(VENV)/.checkout
	@touch $@

setup: $(VENV)/.dependencies
	@test "`cat $(VENV)/.checkout`" = "$(CURDIR)" || { $(BIN)/python -m pip install --quiet --no-deps --editable . && echo "$(CURDIR)" > $(VENV)/.checkout; }

demo: setup
	@$(BIN)/tai demo --out demo-results

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest
