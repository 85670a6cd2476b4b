# Each target makes its own virtual environment when there is none.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PARALLEL := -n logical --dist worksteal
QUICK := -m 'not slow and not trains' tests/test_layers.py tests/test_labels.py $(addprefix tests/,audio nets lm decode score system)

.PHONY: demo test quick lint docs browser bench dist clean

demo: .venv/demo.stamp
	$(BIN)/asr demo --out demo

test: lint
	$(BIN)/python -m pytest -rs $(PARALLEL)

quick: lint
	$(BIN)/python -m pytest $(PARALLEL) $(QUICK)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/dev.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

# SCREENSHOTS=DIR keeps pictures of the page.
browser: .venv/browser.stamp
	$(BIN)/python -m pytest tests/browser

bench: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow
	$(BIN)/python tools/bench_recurrent.py
	$(BIN)/python tools/bench_training.py
	$(BIN)/python tools/bench_score.py

# The same commit gives the same bytes.
dist: .venv/dev.stamp
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[release]'
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]'
	touch $@

# axe-core (MPL-2.0) looks for what hinders people; it stays in the environment.
.venv/browser.stamp: .venv/dev.stamp
	for tool in chromium npm; do \
		command -v $$tool || { apt-get update && apt-get install -y chromium npm; } || exit; \
	done
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev,browser]'
	npm install --prefix .venv --no-save --no-audit --no-fund axe-core@4
	touch $@

clean:
	rm -rf .venv build dist demo docs/_build docs/generated
