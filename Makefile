# The day of a developer on one page. Needs Python 3.11 or newer, make, and the package registries.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo run check fix test test-scale model crash mutants browser-parts clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make the environment: .venv with everything in it

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Snapshed needs Python 3.11 or newer; set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

demo: setup ## Do the main job from nothing, on real screenshots
	$(BIN)/snapshed demo

run: setup ## Serve on http://127.0.0.1:8400 from ./snapshed-data
	$(BIN)/snapshed serve

check: setup ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fix: setup ## Format and mend what can be mended by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser-parts:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } \
	  || { echo "Chromium is needed for the page tests: install your system's chromium package." >&2; exit 1; }

test: setup browser-parts ## The tests, in minutes
	$(BIN)/pytest -q -m "not crash and not scale" -n 3 --dist loadfile

test-scale: setup browser-parts ## What takes numbers: long histories, whole models, thousands of images, a year
	$(BIN)/pytest -q -m "scale and not crash" -n 2

model: setup ## Search the models of the protocol completely; show how each promise breaks without its guard
	PYTHONPATH=tests $(BIN)/python -m model

crash: setup ## Kill real processes at every named step, and check the promises
	$(BIN)/pytest -q -m crash -n 2

mutants: setup ## Take every guard of the protocol out in turn; the tests must notice
	PYTHONPATH=tests $(BIN)/python -m mutants.run

clean: ## Remove the environment and what tools left
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis dist
