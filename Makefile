# Each target sets up .venv by itself, anew when the pins changed.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m lightning_dice

# What the paper expects and did not run, at the study's scale.
PREDICTIONS := $(RUN).train +sweep=study prior=half seed=0,1,2
# The best of the six cells per organ, of one seed.
SIX = runs/phantom/study/loss=[us]*,lr=0.01,seed=$$seed,prior=half runs/phantom/study/loss=[us]*,lr=0.001,seed=$$seed,prior=half
ORGANS = $(RUN).evaluate "run=[$$(echo $(SIX) | tr ' ' ,)]" combine=organs
# Of `make gpu`; the tests run it with SCALE=experiment=smoke.
SCALE :=
OUT := runs/gpu

.PHONY: help demo grid study answer gpu bench scale kill ranks fuzz simulate test lint

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

study: .venv/installed  ## the weightings' study on two cores, some seven hours, which resume; and its report
	$(RUN).train +sweep=study
	$(RUN).train +sweep=rates
	$(PREDICTIONS) loss=square optim.eps=1e-12
	$(PREDICTIONS) loss=square loss.normalize=mean
	$(PREDICTIONS) loss=dice_ce,generalized_dice
	$(PREDICTIONS) loss=simple,square optim.lr=0.01 trainer.max_steps=2400
	$(PREDICTIONS) loss=uniform optim.lr=0.001 transform=spatial
	$(PREDICTIONS) loss=simple,square optim.lr=0.01 transform=spatial
	for seed in 0 1 2 3 4; do $(ORGANS) || exit; done
	$(RUN).report sweep=runs/phantom/study

answer: .venv/installed  ## the study's answer from the scores in this repository, in seconds
	$(RUN).report sweep=.github/study/scores.csv.gz output=runs/answer

gpu: .venv/installed  ## on a CUDA device: its tests, the benchmark, the paper's grid with and without the prior; goes on where it stopped
	$(BIN)/python -m pytest -q -m gpu tests/test_gpu.py
	test -f $(OUT)/benchmark.json || $(RUN).benchmark compare=true output=$(OUT)/benchmark.json $(SCALE)
	$(RUN).train +sweep=grid prior=false,half output_dir=$(OUT) name=grid $(SCALE)
	$(RUN).report sweep=$(OUT)/phantom/grid

bench: .venv/installed  ## time the paper's iterations, patches and volumes at a quarter of its width, beside MONAI and tio.Queue
	$(RUN).benchmark compare=true network.base_channels=8 overlap=0.5 phantoms=40 rounds=7

scale: .venv/installed  ## start-up, batches and memory on 10,000 prepared cases beside 100
	$(BIN)/python -m pytest -q -s -m long tests/test_scale.py

kill: .venv/installed  ## kill runs and reports at some 20 bad moments, and compare what comes out with undisturbed ones
	$(BIN)/python -m pytest -q -s -m long tests/test_kill.py

ranks: .venv/installed  ## runs in two processes each beside those in one: of a sweep, killed, by submitit and by torchrun
	$(BIN)/python -m pytest -q -s -m 'long or not long' tests/test_ranks.py

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
