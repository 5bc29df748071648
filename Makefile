# Everything a newcomer needs: `make demo` and `make test`. Each target makes .venv when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)
WORKERS ?= 2
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test test-slow lint types docs venv format clean

demo: $(STAMP)
	env -u OMP_NUM_THREADS $(BIN)/fanin demo --html report.html

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -n $(WORKERS) -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)
	$(BIN)/pyright

docs: $(STAMP)
	$(BIN)/mkdocs build --strict --quiet

venv: $(STAMP)

# torch first and by its exact version: a range could fetch a build for another device, several GB large.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fanin needs Python 3.11 or newer; say which: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev,docs]"
	@touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache dist
