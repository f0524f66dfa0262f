# The commands of this project. `make` alone lists the targets; each target first installs what it needs.
#
#   make demo                    install into .venv (the first time) and watch a policy learn
#   make test ARGS="-k replay"   pass ARGS on to the command behind the target
#   make test JOBS=1             run the tests in one process
#   make demo EXTRA=gpu          install the CUDA build of vLLM instead of the CPU build
#   make install PYTHON=...      make .venv with this Python (3.11, 3.12 or 3.13)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Empty: the first of python3.11, python3.12 and python3.13 that runs.
PYTHON ?=
EXTRA ?= cpu
ARGS ?=
# The processes that run tests at the same time. Four take about 11 GB of memory; they keep two cores busy while some of
# them wait for Ray or an engine.
JOBS ?= 4
BENCHES ?= bench/rollout.py bench/broadcast.py bench/learner.py bench/cycle.py bench/envs.py bench/env_returns.py bench/replay.py
BENCH_ARGS ?= --quick
VENV := .venv
BIN := $(VENV)/bin
# PyTorch publishes the CPU build of torch at this address, and not on PyPI.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

LOCKS_cpu := requirements-cpu.lock requirements-dev.lock
LOCKS_gpu := requirements-gpu.lock requirements-dev.lock
LOCKS = $(LOCKS_$(EXTRA))
ifeq ($(strip $(LOCKS)),)
$(error EXTRA=$(EXTRA) is not an extra of this project; use EXTRA=cpu or EXTRA=gpu)
endif

# Both stamps are written last: if an installation is interrupted, the next call continues it.
STAMP := $(VENV)/.installed-$(EXTRA)
# The packages of the optional environments: tests need them, `make demo` does not. The name differs from .installed-*,
# which names the extra.
ENVS_STAMP := $(VENV)/.envs-installed
PIP_ENV := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
PIP := env $(PIP_ENV) $(BIN)/python -m pip install -qq --progress-bar off

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  EXTRA=cpu (default) or gpu; PYTHON=/path/to/python; ARGS=\"...\" is passed to the command behind the target."

.PHONY: demo
demo: $(STAMP) ## Train a small policy on Twenty Questions and watch it get better (minutes, no download).
	@$(BIN)/archer demo $(ARGS)

# Hundreds of processes of the tests import the rooms; with PYTHONDONTWRITEBYTECODE each would compile them again.
.PHONY: test
test: $(ENVS_STAMP) ## Run all tests, including those that start Ray, vLLM and DeepSpeed.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

.PHONY: versions
versions: ## Run the tests of envs, buffer and the configuration on Python 3.12 and 3.13, where they are installed.
	@bash .ci/versions $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, formatting (ruff) and the imports between the rooms (import-linter).
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/ruff format --check $(ARGS)
	@$(BIN)/lint-imports --no-logo --no-cache

.PHONY: types
types: $(STAMP) ## Check types with mypy.
	@$(BIN)/mypy $(ARGS)

# pip-audit has an environment of its own. Without a network it says so and does not fail.
.PHONY: audit
audit: $(BIN)/pip ## Look up known vulnerabilities of the pinned packages (pip-audit); needs a network.
	@test -x $(VENV)-audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)-audit && \
	   env $(PIP_ENV) $(VENV)-audit/bin/python -m pip install -qq --no-deps -r requirements-audit.lock; } || \
	   { echo "NOT AUDITED: pip-audit could not be installed"; rm -rf $(VENV)-audit; }
	@test ! -x $(VENV)-audit/bin/pip-audit || $(VENV)-audit/bin/python .ci/audit $(ARGS)

.PHONY: format
format: $(STAMP) ## Correct style and formatting in place.
	@$(BIN)/ruff check --fix $(ARGS)
	@$(BIN)/ruff format $(ARGS)

.PHONY: check
check: ## Run what CI runs: lint, types, versions, test.
	@bash .ci/run

.PHONY: bench
bench: $(STAMP) ## Run the programs of bench/ in their short form; BENCH_ARGS= (empty) for the full form.
	@for program in $(BENCHES); do $(BIN)/python $$program $(BENCH_ARGS); done

.PHONY: docs
docs: $(STAMP) ## Build the documentation site in build/docs/site, strictly and without a network, and check its links.
	@$(BIN)/python deploy/metrics_page.py
	@$(BIN)/python docs/site/build_site.py

.PHONY: wheel
wheel: $(STAMP) ## Build the wheel and the source distribution into dist/.
	@rm -rf build
	@$(BIN)/python -m build $(ARGS)

.PHONY: install
install: $(ENVS_STAMP) ## Make .venv; install the pinned packages, those of the optional environments, and the project.

.PHONY: clean
clean: ## Remove .venv, caches and build output; runs/ stays.
	@rm -rf $(VENV) $(VENV)-3.* $(VENV)-audit build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# --- installation ------------------------------------------------------------------------------

$(STAMP): pyproject.toml setup.py $(LOCKS)
	@rm -f $(STAMP)
	@if compgen -G '$(VENV)/.installed-*' >/dev/null; then \
	   echo "==> $(VENV) holds another extra; making it again for EXTRA=$(EXTRA)"; rm -rf $(VENV); fi
	@$(MAKE) -s $(BIN)/pip
	@$(MAKE) -s packages-$(EXTRA)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "==> installed; the next call starts at once"

# Without a compiler, everything but jericho is installed. No stamp is written, so the next call looks for a compiler again.
$(ENVS_STAMP): $(STAMP) requirements-envs.lock
	@echo "==> installing the packages of the optional environments"
	@if command -v cc >/dev/null; then \
	   $(PIP) --no-deps --no-build-isolation -r requirements-envs.lock; touch $(ENVS_STAMP); \
	 else \
	   echo "    no C compiler (cc) was found: jericho is not installed, and the tests that need it will be skipped." \
	        "On Debian and Ubuntu, install the package gcc."; \
	   $(PIP) --no-deps -r <(grep -v '^jericho==' requirements-envs.lock); fi

# A command that exists may still fail (a shim of pyenv for a version that is switched off), so each candidate is run.
$(BIN)/pip:
	@works() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }; \
	 python="$(PYTHON)"; \
	 if [ -n "$$python" ]; then \
	   if ! command -v "$$python" >/dev/null; then \
	     echo "$$python was not found. ArCHer needs Python 3.11, 3.12 or 3.13: install one of them," \
	          "or name it with PYTHON=/path/to/python3.11." >&2; exit 1; fi; \
	   if ! works "$$python"; then \
	     echo "$$python is not a working Python 3.11, 3.12 or 3.13 ($$("$$python" --version 2>&1 | head -n 1))." \
	          "Name one with PYTHON=/path/to/python3.11." >&2; exit 1; fi; \
	 else \
	   for candidate in python3.11 python3.12 python3.13; do \
	     if works $$candidate; then python=$$candidate; break; fi; done; \
	 fi; \
	 if [ -z "$$python" ] && command -v uv >/dev/null; then \
	   echo "==> no Python 3.11, 3.12 or 3.13 was found; uv installs Python 3.11"; \
	   uv python install 3.11 && python=$$(uv python find 3.11) || { \
	     echo "uv could not install Python 3.11, for the reason above." >&2; exit 1; }; fi; \
	 if [ -z "$$python" ]; then \
	   echo "No working Python 3.11, 3.12 or 3.13 was found. Install one of them (on Debian and Ubuntu:" \
	        "python3.11 and python3.11-venv) or uv, which brings its own, or name one with" \
	        "PYTHON=/path/to/python3.11." >&2; exit 1; fi; \
	 echo "==> making $(VENV) with $$("$$python" --version)"; \
	 if ! "$$python" -m venv --clear $(VENV); then rm -rf $(VENV); \
	   echo "$$python -m venv failed. On Debian and Ubuntu, install the package" \
	        "python$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv." >&2; exit 1; fi

# torch is installed first and alone, so that pip looks up no other package in the index added for it.
.PHONY: packages-cpu
packages-cpu:
	@torch=$$(grep '^torch==' requirements-cpu.lock); echo "==> installing $$torch"; \
	 if ! output=$$($(PIP) --no-deps "$$torch" 2>&1); then \
	   echo "    pip does not find it with its present settings; adding $(TORCH_INDEX)"; \
	   $(PIP) --no-deps --extra-index-url $(TORCH_INDEX) "$$torch" || { \
	     echo "Without the added index, pip printed:" >&2; echo "$$output" >&2; exit 1; }; fi
	@$(MAKE) -s packages-locked

.PHONY: packages-gpu
packages-gpu: packages-locked

.PHONY: packages-locked
packages-locked:
	@echo "==> installing $$(cat $(LOCKS) | grep -c '^[A-Za-z]') pinned packages (minutes, the first time)"
	@$(PIP) --no-deps $(LOCKS:%=-r %)
