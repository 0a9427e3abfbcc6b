# `make demo`: the simulated robot does three things it is told. `make test`: everything is checked.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
SETUP_FILES := setup.py config/setup/setup.sh config/setup/constraints.txt
NANO_OUT ?= out/nano
export PYTHONUNBUFFERED := 1

.PHONY: demo test test-fast lint nano bench clean help

help:
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ -/'

$(VENV)/.ready: $(SETUP_FILES)
	@config/setup/setup.sh $(VENV) ""
	@touch $@

$(VENV)/.ready-test: $(SETUP_FILES)
	@config/setup/setup.sh $(VENV) "[test]"
	@touch $(VENV)/.ready $@

demo: $(VENV)/.ready ## the table-top robot, the policy server and three goals; writes out/demo.mp4
	@$(BIN)/fastvla demo --out out

test: $(VENV)/.ready-test lint ## lint, types, import rules and the whole test-suite
# Half of the suite waits for nothing but the processor: two processes of one thread each. What talks to
# other nodes has the machine to itself.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/ros --numprocesses auto --maxprocesses 4 --dist loadfile
	@$(BIN)/python -m pytest tests/ros

lint: $(VENV)/.ready-test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/pyright --pythonpath $(BIN)/python

nano: $(VENV)/.ready ## reproduce the shipped policy: demonstrations, training, a short evaluation
	@$(BIN)/fastvla train --recipe nano --out $(NANO_OUT)
	@$(BIN)/fastvla eval --policy $(NANO_OUT)/policy --seeds 10000000:10000020

bench: $(VENV)/.ready ## the numbers of docs/benchmarks.md
	@$(BIN)/fastvla bench --json out/bench.json

clean: ## remove the virtual environment and everything generated
	@rm -rf $(VENV) out build install log *.egg-info
