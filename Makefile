# OnCue: `make` lists what there is. A fresh machine needs python3 (3.11 to 3.14) and make, nothing else.

PYTHON ?= python3
# One more than the cores: tests wait for servers and processes a third of their time.
WORKERS ?= 3
TESTS ?= tests

# Tests start hundreds of interpreters: each is to find its modules compiled.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_VENV := .venv-demo
DEMO_READY := $(DEMO_VENV)/.ready
CODE = $(wildcard src tests bench examples)
# Where a bug loses or doubles a message: these files have their coverage shown.
CORE = */oncue/*.py,*/oncue/store/*,*/oncue/wake/*

# A part of the tests may touch none of these files: that is no failure.
PART = $(if $(filter tests,$(TESTS)),,-)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports pytest bench docs soak lock format clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## See a WhatsApp trial run, its worker killed in the middle (under a minute, no server)
	@test -e $(READY) || $(MAKE) --no-print-directory $(DEMO_READY)
	@if test -e $(READY); then exec $(BIN)/python -m oncue demo; else exec $(DEMO_VENV)/bin/python -m oncue demo; fi

test: lint types imports pytest ## Check and test everything

lint: $(READY) ## Check style and likely mistakes
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(READY) ## Check types, strictly
	$(BIN)/mypy $(CODE)

imports: $(READY) ## Check that imports go one way between the rooms
	$(BIN)/lint-imports

pytest: $(READY) ## Run the tests with coverage; TESTS=tests/unit runs a part
	@.ci/servers
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal -ra $(TESTS)
	$(PART)$(BIN)/coverage combine --quiet
	$(PART)$(BIN)/coverage report --include='$(CORE)'

bench: $(READY) ## Measure, beside the peers
	$(BIN)/python -m bench

docs: $(READY) ## Run what the documentation shows and check its links
	$(BIN)/pytest -n $(WORKERS) tests/docs

soak: $(READY) ## Kill processes and try random lives for MINUTES=10, with many more cases than the tests
	ONCUE_ALL_DATABASES=1 $(BIN)/pytest -q -n $(WORKERS) tests/source tests/worker tests/callers tests/postgres
	ONCUE_SOAK_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest -q -s tests/crash
	ONCUE_SIMULATIONS=2000 ONCUE_SIMULATION_STEPS=200 $(BIN)/pytest -q --timeout 7200 tests/simulation

format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lock: $(READY) ## Renew the lock files in requirements/ (needs network)
	$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet uv
	rm -f uv.lock
	$(BIN)/uv export --quiet --format requirements.txt --no-emit-project --extra all --extra dev --group build --output-file requirements/dev.txt >/dev/null
	$(BIN)/uv export --quiet --format requirements.txt --no-emit-project --extra web --extra whatsapp --group build --output-file requirements/demo.txt >/dev/null
	@! grep -n '://' requirements/*.txt || { echo 'oncue: a lock file names an address; see above' >&2; exit 1; }

clean: ## Remove what these targets made
	rm -rf $(VENV) $(DEMO_VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(READY): requirements/dev.txt pyproject.toml .ci/venv
	@echo "oncue: setting up $(VENV), once"
	@.ci/venv "$(PYTHON)" $(VENV) requirements/dev.txt
	@touch $@

$(DEMO_READY): requirements/demo.txt pyproject.toml .ci/venv
	@echo "oncue: setting up $(DEMO_VENV), once"
	@.ci/venv "$(PYTHON)" $(DEMO_VENV) requirements/demo.txt
	@touch $@
