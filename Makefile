# The project's commands. Each sets up what it needs first; a set-up that is there is not repeated.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format train clean

# Maps of the bundled model over 200,000 tokens of the standard library.
demo: $(READY)
	$(BIN)/projector fit bundled --corpus stdlib --max-tokens 200000 --dim 3 \
		--out runs/demo --pictures --force

test: $(READY)
	$(BIN)/pytest

# What must hold before a commit: format, lint, types, tests.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Train the bundled model anew; writes runs/bundled/ and goes on where it stopped.
train: $(READY)
	$(BIN)/python -m projector.bundled.train

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, and this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
