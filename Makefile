# Two commands on a fresh machine with nothing but Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export OMP_PROC_BIND ?= true

.PHONY: demo test slow zoo lint docs bench clean

demo: $(VENV)/.runtime
	$(BIN)/unfooled demo --out demo

# One process for each core, of one thread: bound threads would share a core.
test: $(VENV)/.dev $(VENV)/.optional $(VENV)/.peers
	OMP_PROC_BIND=false $(BIN)/python -m pytest -n auto --dist worksteal

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# Every broken and every sound set-up, from end to end, and runs killed at many moments: some ten minutes.
zoo: $(VENV)/.dev
	OMP_PROC_BIND=false $(BIN)/python -m pytest -m slow -n auto --dist worksteal tests/test_zoo.py tests/test_redteam.py tests/test_resume_slow.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, into build/site; it opens from disk.
docs: $(VENV)/.optional
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.dev $(VENV)/.peers
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python -m benchmarks.attacks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No venv: install Python's venv (Debian: python3-venv)."; exit 1; }

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements-dev.txt
	touch $@

# The forms of models and data that are extras, the explorer, the docs.
$(VENV)/.optional: $(VENV)/.dev requirements-optional.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements-optional.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# For reference tests and benchmarks only. Where they cannot be had, those tests are skipped and say so.
$(VENV)/.peers: $(VENV)/.dev requirements-peers.txt requirements-peers-no-deps.txt
	{ $(BIN)/python -m pip install --quiet --constraint constraints.txt --requirement requirements-peers.txt && \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --requirement requirements-peers-no-deps.txt && \
	  touch $@; } || echo "The peers could not be installed: tests/reference will skip what needs them."

clean:
	rm -rf $(VENV) demo build dist
