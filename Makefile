# Two commands on a fresh clone: `make demo` weaves, `make test` checks everything that CI checks.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo docs test clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch torchvision
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/histoloom demo --out woven/demo
	@echo "Look at woven/demo/contact-sheet.png"

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html"

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest

clean:
	rm -rf $(VENV) woven runs site
