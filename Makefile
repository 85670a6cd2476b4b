# Each target makes its own virtual environment when there is none.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n logical --dist worksteal
TRAIN_NOTHING := tests/test_layers.py tests/test_labels.py $(addprefix tests/,audio nets lm decode score system)

.PHONY: demo test quick lint bench clean

demo: .venv/demo.stamp
	$(BIN)/asr demo --out demo

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

quick: lint
	$(BIN)/python -m pytest $(PARALLEL) $(TRAIN_NOTHING)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow
	$(BIN)/python tools/bench_recurrent.py
	$(BIN)/python tools/bench_training.py
	$(BIN)/python tools/bench_score.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist demo
