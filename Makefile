# Two commands: `make demo` shows the engine at work, `make test` proves it. Both set up .venv first, once.
PYTHON ?= python3
VENV ?= .venv
# Environments beside .venv, for other versions than the tested ones; each is about 7 GB and may be deleted.
OTHERS ?= .environments
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet
SOURCE_ROOTS := $(CURDIR)/engine:$(CURDIR)/kernels:$(CURDIR)/benchmarks

export TAI_READERS ?= $(abspath $(OTHERS)/readers/bin/python)

.DEFAULT_GOAL := help
.PHONY: help demo test docs test-fast test-oldest test-gpu-image test-s3 s3-server gpu lock readers clip-retrieval setup python-check

help:
	@echo "make demo            tag the embedded pictures with the embedded model and show the result"
	@echo "make test            lint, format check, type check and all tests"
	@echo "make test-fast       lint and the quick tests (no commands, no whole ways, no benchmarks), within two minutes"
	@echo "make test-oldest     kernels, store and prompts with the oldest versions that pyproject.toml promises"
	@echo "make test-gpu-image  kernels and benchmarks with what a CUDA image of PyTorch 2.11 carries"
	@echo "make test-s3         stores on S3, served by moto on this machine (300 MB)"
	@echo "make gpu             on a machine with a GPU: its tests and benchmarks, with the Python at hand"
	@echo "make docs            the documentation as pages in build/docs, warnings being errors"
	@echo "make readers         the programs that exports are for (1.4 GB), so that tests can ask them"
	@echo "make clip-retrieval  the program that tai_benchmarks.folder_contest times beside ours (7 GB)"
	@echo "make lock            test the newest versions, and keep them in constraints.txt"

python-check:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "tai-engine needs Python 3.11 or newer, and '$(PYTHON)' was not found: install it or name it (make PYTHON=python3.12 ...)." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tai-engine needs Python 3.11 or newer, but '$(PYTHON)' is `$(PYTHON) -V 2>&1`: name a newer one (make PYTHON=python3.12 ...)." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: install it (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 2; }

# The stamp carries the checkout's folder, so that an environment that is shared between checkouts is linked to the present one.
$(VENV)/.dependencies: pyproject.toml constraints.txt | python-check
	@echo "Setting up $(VENV) (about 7 GB with PyTorch's CUDA build, a few minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) --upgrade "pip>=25.1"
	@$(BIN)/python tests/environments.py install
	@echo "$(CURDIR)" > $(VENV)/.checkout
	@touch $@

setup: $(VENV)/.dependencies
	@test "`cat $(VENV)/.checkout`" = "$(CURDIR)" || { $(BIN)/python $(PIP_INSTALL) --no-deps --editable . && echo "$(CURDIR)" > $(VENV)/.checkout; }

demo: setup
	@$(BIN)/tai demo --out demo-results

# Each process begins with half of the files, and goes on with what the other one has left.
IN_TWO := --numprocesses 2 --dist worksteal

define checks
	$(1)/ruff check .
	$(1)/ruff format --check .
	$(1)/mypy
	$(1)/python -m pytest $(IN_TWO)
endef

test: setup
	$(call checks,$(BIN))

test-fast: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(IN_TWO) -m "not slow" $(addprefix --ignore=tests/,benchmarks engine/annotating engine/cli engine/demo engine/distributed engine/reproducing)

# A fresh environment $(OTHERS)/$(1).
define fresh
	@echo "Setting up $(OTHERS)/$(1) (about $(or $(2),7) GB, a few minutes) ..."
	@rm -rf $(OTHERS)/$(1)
	@$(PYTHON) -m venv $(OTHERS)/$(1)
	@$(OTHERS)/$(1)/bin/python $(PIP_INSTALL) --upgrade "pip>=25.1"
endef

test-oldest: python-check
	$(call fresh,oldest)
	@$(OTHERS)/oldest/bin/python tests/environments.py oldest > $(OTHERS)/oldest/oldest.txt
	@$(OTHERS)/oldest/bin/python $(PIP_INSTALL) --editable . --group dev --constraint $(OTHERS)/oldest/oldest.txt
	$(OTHERS)/oldest/bin/python -m pytest tests/kernels tests/engine/store tests/engine/prompts

# Triton 3.6's interpreter needs a NumPy before 2.4; on a GPU kernels are compiled.
GPU_IMAGE := torch==2.11.0 triton==3.6.0 'numpy<2.4' pillow pyarrow fsspec safetensors typer rich pytest hypothesis
BENCHMARK_TESTS := $(addprefix tests/benchmarks/test_,bench_score.py bench_tune.py bench_encode.py)

test-gpu-image: python-check
	$(call fresh,gpu-image)
	@$(OTHERS)/gpu-image/bin/python $(PIP_INSTALL) $(GPU_IMAGE)
	PYTHONPATH=$(SOURCE_ROOTS) $(OTHERS)/gpu-image/bin/python -m pytest --skip-uninstalled tests/kernels $(BENCHMARK_TESTS)

# Nothing is installed and no network is needed: the Python at hand has torch.
gpu:
	PYTHONPATH=$(SOURCE_ROOTS) $(PYTHON) -m tai_benchmarks.on_gpu

# The programs that exports are for want other versions than ours; tests ask them, where they are there.
READERS := label-studio-sdk datumaro pycocotools datasets fiftyone

readers: python-check
	$(call fresh,readers,1.4)
	@$(OTHERS)/readers/bin/python $(PIP_INSTALL) $(READERS)

# Another program that encodes folders of pictures; benchmarks time it beside ours.
clip-retrieval: python-check
	$(call fresh,clip-retrieval)
	@$(OTHERS)/clip-retrieval/bin/python $(PIP_INSTALL) clip-retrieval "setuptools<81"

# Pages are built from the sources alone: neither the engine nor a network is needed but for installing the builder.
docs: python-check
	@test -x $(OTHERS)/docs/bin/mkdocs || { $(PYTHON) -m venv $(OTHERS)/docs && $(OTHERS)/docs/bin/python $(PIP_INSTALL) --upgrade "pip>=25.1" && $(OTHERS)/docs/bin/python $(PIP_INSTALL) --group docs; }
	NO_MKDOCS_2_WARNING=1 $(OTHERS)/docs/bin/mkdocs build --strict --quiet --config-file engine/docs/mkdocs.yml

# moto and s3fs want an older python-dateutil than the rest, so that only the tests of stores on S3 see them.
s3-server: setup
	@test -d $(OTHERS)/s3/moto || $(BIN)/python $(PIP_INSTALL) --target $(OTHERS)/s3 --group s3

test-s3: s3-server
	PYTHONPATH=$(abspath $(OTHERS)/s3) $(BIN)/python -m pytest -m s3 tests/engine/store

# What is newest today becomes what is installed tomorrow, if it passes.
lock: python-check
	$(call fresh,newest)
	@$(OTHERS)/newest/bin/python $(PIP_INSTALL) --editable . --group dev
	$(call checks,$(OTHERS)/newest/bin)
	$(OTHERS)/newest/bin/python tests/environments.py lock
