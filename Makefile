# Two commands: `make demo` and `make test`. Both install what they need into .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint typecheck ui clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The type checker sees the built wheel: in it, assets, resources and jobs stand where they are imported from.
typecheck: $(VENV)/.test
	rm -rf build
	$(BIN)/python -m build --wheel --no-isolation --outdir build/typecheck . > /dev/null
	$(BIN)/python -m zipfile -e build/typecheck/*.whl build/typecheck/src
	cd build/typecheck/src && MYPYPATH=. ../../../$(BIN)/mypy --config-file ../../../pyproject.toml -p fingerprint_dagster

ui: $(VENV)/.demo
	FINGERPRINT_HOME=.demo/home $(BIN)/fingerprint ui

clean:
	rm -rf $(VENV) build dist .demo *.egg-info

# A stock Debian has Python without its venv module; there, an administrator gets it from the distribution.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2> /dev/null || \
	    { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y python3-venv; } || \
	    { echo "Python's venv module is missing; install it: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV); the first time this takes a few minutes (PyTorch is large)."
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV); the first time this takes a few minutes (PyTorch is large)."
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
