# The project's commands. Each sets up what it needs first; a set-up that is there is not repeated.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
READY := $(VENV)/.ready
# Where JavaScript and style sheets are.
WEB := dashboard projector

.PHONY: demo dashboard test docs check browser format train gpu clean

# Maps and poles of the bundled model over 200,000 tokens of the standard library.
demo: $(READY)
	$(BIN)/projector fit bundled --corpus stdlib --max-tokens 200000 --out runs/demo \
		--pictures --force
	$(BIN)/pruning poles runs/demo
	@echo 'All of it in a browser: make dashboard'

# Maps, poles, prompts and pruning in a browser, on this machine alone.
dashboard: $(READY)
	$(BIN)/streamlit run dashboard

# A process for each core and one more, and a file's tests in one of them: they share what they
# made. In their order: files of few tests have long ones, and would be left for the end. What is
# compiled is kept for the other processes, also where PYTHONDONTWRITEBYTECODE is set.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY)
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# The documentation as a site, in site/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html -c docs . site

# Chromium, which the browser tests run in; without it they are skipped.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends chromium; } \
		|| { echo 'Chromium is not here and could not be installed: install it by hand'; exit 1; }

# What must hold before a commit: format, lint, who imports whom, types, tests.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/oxfmt --check $(WEB)
	$(BIN)/oxlint $(WEB)
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(MAKE) docs
	$(MAKE) test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/oxfmt $(WEB)

# Everything that a GPU alone can show, in at most 8 minutes; writes runs/gpu.json.
gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

# Train the bundled model anew; writes runs/bundled/ and goes on where it stopped.
train: $(READY)
	$(BIN)/python -m projector.bundled.train

clean:
	rm -rf $(VENV) runs site build dist *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, and this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
