# Each target sets up .venv by itself, anew when the pins changed.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m lightning_dice

.PHONY: help demo grid bench scale kill fuzz simulate test lint

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed  ## train on synthetic CTs for a few minutes, test, draw
	$(RUN).train experiment=demo loss=simple optim.lr=0.01

grid: .venv/installed  ## the paper's six cells at the demo's scale, and their report, also when a cell failed
	$(RUN).train +sweep=grid experiment=demo; status=$$?; $(RUN).report sweep=runs/phantom/demo && exit $$status

bench: .venv/installed  ## time the paper's iterations, patches and volumes at a quarter of its width, beside MONAI and tio.Queue
	$(RUN).benchmark compare=true network.base_channels=8 overlap=0.5 phantoms=40 rounds=7

scale: .venv/installed  ## start-up, batches and memory on 10,000 prepared cases beside 100
	$(BIN)/python -m pytest -q -s -m long tests/test_scale.py

kill: .venv/installed  ## kill runs and reports at some 20 bad moments, and compare what comes out with undisturbed ones
	$(BIN)/python -m pytest -q -s -m long tests/test_kill.py

fuzz: .venv/installed  ## ten minutes of random settings and damaged files: no traceback, no hang, no wrong table
	$(BIN)/python -m pytest -q -s -m long tests/test_fuzz.py

simulate: .venv/installed  ## wrong answers of the report's statistics on thousands of made-up grids, in a quarter of an hour
	$(BIN)/python -m pytest -q -s -m long tests/test_simulation.py

test: lint  ## lint, then all tests
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed  ## format, lint and types, checked only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
