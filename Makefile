# Everything runs in .venv beside this file; the system's Python only creates it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test test-slow test-mutants check clean

# Build the quickstart recipe, answer on 30 of its images (FULL=1: on all 300), compare tile rules.
# The language model is so small that one thread is the fastest: others spin while they wait.
quickstart: $(INSTALLED)
	$(BIN)/vlmc build recipes/quickstart/recipe.yaml
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m recipes.quickstart.table artifacts/quickstart $(if $(FULL),--images all)

# Formatting, types, and the tests that run in minutes.
test: check
	$(BIN)/pytest -q -n 2 --dist loadgroup

# Long soaks, on top of `make test`.
test-slow: $(INSTALLED)
	$(BIN)/pytest -q -m slow

# Faults put into a copy of the tree one by one, each of which some test has to notice.
test-mutants: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(FAULTS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints/cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vlmc needs Python 3.11 or newer; name it with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing vlmc and what it needs into $(VENV). This takes about two minutes."
	$(BIN)/python -m pip install --constraint constraints/cpu.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
