# Needed: make, Python 3.11 or newer with its venv module, and a package index.
# Everything is installed into VENV; nothing else on the machine is touched.

PYTHON ?= python3
VENV ?= .venv
LOGS ?= fixtures/logs
OUT ?= .
WORKERS ?= 2
export OMP_NUM_THREADS ?= 2

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test check lint types tests thorough coverage format docs notebooks readme clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Play a workflow, and replay the logs in fixtures/logs (LOGS=... for yours): report.json, report.html
	@mkdir -p "$(OUT)"
	$(BIN)/apportion demo
	$(BIN)/apportion replay $(LOGS) --json "$(OUT)/report.json" --html "$(OUT)/report.html"

test: check tests ## Everything that must pass: lint, types, tests (about 15 minutes on 2 cores)

check: lint types ## Only what is quick: lint and types

lint: $(VENV)/.installed-dev ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## Check types
	$(BIN)/mypy

# Hundreds of the tests start a Python of their own: each would compile all modules anew if none were kept.
tests thorough coverage: export PYTHONDONTWRITEBYTECODE =
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

tests: $(VENV)/.installed-dev ## Run the tests
	$(PYTEST)

thorough: $(VENV)/.installed-dev ## Run the tests with four times as many examples of each law (an hour or more)
	HYPOTHESIS_PROFILE=thorough $(PYTEST)

coverage: $(VENV)/.installed-dev ## Run the tests and show what they do not reach (nearly twice the time of make tests)
	$(PYTEST) --cov --cov-report=term

format: $(VENV)/.installed-dev ## Sort out style and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed-dev ## Write what is generated in the pages anew, and run the examples of docs/planning.md and docs/compression.md
	$(BIN)/python docs/update_benchmarks.py
	$(BIN)/python docs/update_cli.py
	$(BIN)/python docs/update_report.py
	$(BIN)/python docs/update_planning.py
	$(BIN)/python docs/update_compression.py

notebooks: $(VENV)/.installed-dev ## Bring both forms of the notebooks in step, the newer one wins
	$(BIN)/jupytext --sync notebooks/*.ipynb

readme: $(VENV)/.installed-demo ## Run the demo and put its output into README.md
	$(BIN)/python docs/update_readme.py

clean: ## Remove the environment and everything that was generated
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f report.json report.html

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "apportion needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
		{ rm -rf $(VENV); echo "python3 cannot make environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.created pyproject.toml constraints-dev.txt
	@echo "installing into $(VENV) (a minute or two, from the package index) ..."
	@$(INSTALL) --editable '.[report]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints-dev.txt
	@echo "installing into $(VENV), with the tools of development (some minutes, from the package index) ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-demo
