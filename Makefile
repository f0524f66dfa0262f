# Everything a person types. `make` alone lists the targets; each one first installs what it needs.
#
#   make demo                    install into .venv (the first time) and watch a policy learn
#   make test ARGS="-k replay"   anything in ARGS goes to the command behind the target
#   make demo EXTRA=gpu          the CUDA build of vLLM instead of the CPU build
#   make install PYTHON=...      which Python 3.11 makes the .venv

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
EXTRA ?= cpu
ARGS ?=
BENCHES ?= bench/rollout.py bench/broadcast.py bench/learner.py bench/cycle.py bench/envs.py bench/env_returns.py bench/replay.py
BENCH_ARGS ?= --quick
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch is not on PyPI; this is where PyTorch publishes it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

LOCKS_cpu := requirements-cpu.lock requirements-dev.lock
LOCKS_gpu := requirements-gpu.lock requirements-dev.lock
LOCKS = $(LOCKS_$(EXTRA))
ifeq ($(strip $(LOCKS)),)
$(error EXTRA=$(EXTRA) is not an extra of this project; say EXTRA=cpu or EXTRA=gpu)
endif

# Written last, so an interrupted install leaves none and the next call takes it up again.
STAMP := $(VENV)/.installed-$(EXTRA)
# The games' packages, which tests play and users of `make demo` needn't wait for. Not .installed-*: that names the extra.
ENVS_STAMP := $(VENV)/.envs-installed
PIP_ENV := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
PIP := env $(PIP_ENV) $(BIN)/python -m pip install -qq --progress-bar off

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  EXTRA=cpu (default) or gpu; PYTHON=python3.11; ARGS=\"...\" goes to the command behind the target."

.PHONY: demo
demo: $(STAMP) ## Train a small policy on Twenty Questions and watch it get better (minutes, no download).
	@$(BIN)/archer demo $(ARGS)

.PHONY: test
test: $(ENVS_STAMP) ## Run all tests, the real stack included.
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, formatting (ruff) and the imports between the rooms (import-linter).
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/ruff format --check $(ARGS)
	@$(BIN)/lint-imports --no-logo --no-cache

.PHONY: types
types: $(STAMP) ## Check types with mypy.
	@$(BIN)/mypy $(ARGS)

.PHONY: format
format: $(STAMP) ## Mend style and formatting in place.
	@$(BIN)/ruff check --fix $(ARGS)
	@$(BIN)/ruff format $(ARGS)

.PHONY: check
check: ## What CI runs: lint, types, test.
	@bash .ci/run

.PHONY: bench
bench: $(STAMP) ## Run the programs of bench/ in their short form; BENCH_ARGS= (empty) for the full one.
	@for program in $(BENCHES); do $(BIN)/python $$program $(BENCH_ARGS); done

.PHONY: install
install: $(ENVS_STAMP) ## Make .venv and install the pinned packages, the games' too, and the project into it.

.PHONY: clean
clean: ## Remove .venv, caches and build leftovers; runs/ stays.
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

# --- installation ------------------------------------------------------------------------------

$(STAMP): pyproject.toml setup.py $(LOCKS)
	@rm -f $(STAMP)
	@if compgen -G '$(VENV)/.installed-*' >/dev/null; then \
	   echo "==> $(VENV) holds another extra; starting it anew for EXTRA=$(EXTRA)"; rm -rf $(VENV); fi
	@$(MAKE) -s $(BIN)/pip
	@$(MAKE) -s packages-$(EXTRA)
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "==> installed; the next call starts at once"

# Without a compiler everything but jericho is installed, and no stamp is written: the next call looks for one again.
$(ENVS_STAMP): $(STAMP) requirements-envs.lock
	@echo "==> installing the packages of the optional environments"
	@if command -v cc >/dev/null; then \
	   $(PIP) --no-deps --no-build-isolation -r requirements-envs.lock; touch $(ENVS_STAMP); \
	 else \
	   echo "    no C compiler (cc) was found: jericho is left out, and the tests of what needs it will be skipped." \
	        "On Debian and Ubuntu it is the package gcc."; \
	   $(PIP) --no-deps -r <(grep -v '^jericho==' requirements-envs.lock); fi

$(BIN)/pip:
	@if ! command -v $(PYTHON) >/dev/null; then \
	   echo "$(PYTHON) was not found. ArCHer needs Python 3.11: install it, or name it" \
	        "with PYTHON=/path/to/python3.11." >&2; exit 1; fi
	@if [ "$$($(PYTHON) -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)" != "3 11" ]; then \
	   echo "$(PYTHON) is not a working Python 3.11 ($$($(PYTHON) --version 2>&1 | head -n 1))." \
	        "Name one with PYTHON=/path/to/python3.11." >&2; exit 1; fi
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@if ! $(PYTHON) -m venv --clear $(VENV); then rm -rf $(VENV); \
	   echo "$(PYTHON) -m venv failed. On Debian and Ubuntu what is missing is the package" \
	        "python3.11-venv." >&2; exit 1; fi

# torch goes first and alone, so that no package but torch is ever looked up in the index added for it.
.PHONY: packages-cpu
packages-cpu:
	@torch=$$(grep '^torch==' requirements-cpu.lock); echo "==> installing $$torch"; \
	 if ! said=$$($(PIP) --no-deps "$$torch" 2>&1); then \
	   echo "    not found by pip as it is set up here; adding $(TORCH_INDEX)"; \
	   $(PIP) --no-deps --extra-index-url $(TORCH_INDEX) "$$torch" || { \
	     echo "Without the added index pip said:" >&2; echo "$$said" >&2; exit 1; }; fi
	@$(MAKE) -s packages-locked

.PHONY: packages-gpu
packages-gpu: packages-locked

.PHONY: packages-locked
packages-locked:
	@echo "==> installing $$(cat $(LOCKS) | grep -c '^[A-Za-z]') pinned packages (minutes, the first time)"
	@$(PIP) --no-deps $(LOCKS:%=-r %)
