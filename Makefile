# On a fresh clone: `make demo` weaves, `make test` checks everything that CI checks, `make docs` builds the site.
VENV := .venv
PYTHON ?= python3
PIP_ARGS ?=
COVERAGE ?= --cov --cov-report=
BIN := $(VENV)/bin

.PHONY: demo docs test check pytest clean

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# What weaving needs, and no more.
$(VENV)/.weaving: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet $(PIP_ARGS) --editable .
	touch $@

# What tests and docs need: every extra.
$(VENV)/.developing: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	touch $(VENV)/.weaving $@

demo: $(VENV)/.weaving
	$(BIN)/histoloom demo --out woven/demo
	@echo "Look at woven/demo/contact-sheet.png"

docs: $(VENV)/.developing
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html"

test: check pytest

# The check of the pages comes first: it fetches axe-core, without which tests of the pages that run meanwhile skip.
check: $(VENV)/.developing
	$(BIN)/python scripts/build_page.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/pyright --pythonpath $(BIN)/python

pytest: $(VENV)/.developing
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses 3 --dist worksteal $(COVERAGE)
	$(if $(COVERAGE),@echo "Coverage: $$($(BIN)/coverage report --format=total) % (coverage report shows the gaps)")

clean:
	rm -rf $(VENV) woven runs site
