# make setup       .venv for what this machine has: the engine for GPUs where there is an NVIDIA driver, else none (EXTRAS="cpu" names it)
# make test        set up the CPU engine and the test tools, run every test
# make faults      the whole fault suite around a stand-in engine, ENGINE=real: some of it around the real one; the table is in build/faults.md
# make check       what continuous integration runs: lint, types, shell scripts, tests
# make audit       are the installed dependencies whole, current and free of known faults? (AUDIT_ARGS=--offline asks nobody)
# make clean       remove caches; .venv, weights, logs and media stay

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: setup dev test faults lint types shell check audit clean

# $(call set_up,EXTRAS): .venv has these extras afterwards, and $$python runs them. A path may hold spaces and quotes.
set_up = root=$$(pwd -P); source scripts/python.sh; set_up $(1)

setup:
	@$(call set_up,$(or $(EXTRAS),$$(engine_for)))

dev:
	@$(call set_up,cpu dev)

test:
	@$(call set_up,cpu dev); exec scripts/run_tests.sh "$$python" $(PYTEST_ARGS)

# Much of the time a fault waits.
WORKERS = $$(n=$$(nproc); echo $$((n < 4 ? n + 1 : 4)))

faults:
	@$(call set_up,cpu dev); export FAULTS_TABLE=build; \
	exec "$$python" -m pytest tests/faults $(if $(filter real,$(ENGINE)),-m "faults and engine",-m "faults and not engine" -n $(WORKERS)) $(PYTEST_ARGS)

lint: dev
	@$(call set_up,cpu dev); "$$python" -m ruff check .

types: dev
	@$(call set_up,cpu dev); "$$python" -m mypy

shell: dev
	@$(call set_up,cpu dev); "$$(dirname "$$python")/shellcheck" --external-sources ./*.sh scripts/*.sh .ci/run

check: lint types shell test

audit:
	@$(call set_up,$(or $(EXTRAS),$$(engine_for))); exec "$$python" scripts/audit_dependencies.py $(AUDIT_ARGS)

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
