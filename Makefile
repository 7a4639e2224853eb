# `make demo` and `make test` do everything on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# uv resolves and unpacks in a tenth of pip's time; torch comes by pip, since its wheels lie in places that only pip may know.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: demo test test-quick test-slow lint types clean

demo: $(VENV)/.demo-ready
	$(BIN)/kdc demo --out kdc-demo --overwrite

test: $(VENV)/.test-ready
	$(BIN)/python -m pytest

test-quick: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-ready
	$(BIN)/mypy

clean:
	rm -rf $(VENV) kdc-demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch>=2.9' torchvision uv

$(VENV)/.demo-ready: $(BIN)/uv pyproject.toml
	$(INSTALL) -e '.[openvino]'
	touch $@

$(VENV)/.test-ready: $(BIN)/uv pyproject.toml
	$(INSTALL) -e '.[dev]'
	$(INSTALL) -e '.[mobile]'
	touch $@ $(VENV)/.demo-ready
