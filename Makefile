# Targets a user or developer needs; `make PYTHON=python3.12 test` uses another Python.
PYTHON ?= python3
ENVIRONMENTS ?= .build
PYTEST_FLAGS ?= -n auto
PIP_FLAGS ?= --quiet
INSTALL = -m pip install $(PIP_FLAGS) -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test planner quick lint docs golden bench fit validate faults coverage clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

define NEXT

Next, activate the environment:  . $(ENVIRONMENTS)/demo/bin/activate
Then try:
  parframe show specs/out/quickstart --device 5       the operators of one device
  parframe apply specs/experts.toml                   experts on four devices
  parframe choose llama-3-70b --devices 8xH100        which composite on which GPUs
  parframe generate MODEL_FOLDER --parallel PP2TP2 --prompt "Once upon a time"
  parframe --help
endef
export NEXT

demo:  ## fresh environment, install, then partition, check and verify a small model
	rm -rf $(ENVIRONMENTS)/demo build
	$(PYTHON) -m venv $(ENVIRONMENTS)/demo
	$(ENVIRONMENTS)/demo/bin/python $(INSTALL) '.[hf]'
	$(ENVIRONMENTS)/demo/bin/parframe apply specs/quickstart.toml
	@echo "$$NEXT"

test:  ## fresh environment, install, then lint, types, import contracts and all tests
	rm -rf $(ENVIRONMENTS)/test build
	$(PYTHON) -m venv $(ENVIRONMENTS)/test
	$(ENVIRONMENTS)/test/bin/python $(INSTALL) '.[hf,test,dev]'
	$(MAKE) lint BIN=$(ENVIRONMENTS)/test/bin/
	$(ENVIRONMENTS)/test/bin/pytest $(PYTEST_FLAGS)
	$(MAKE) planner

planner:  ## fresh environment without extras, hence without torch: choose a composite; under 300 MB
	rm -rf $(ENVIRONMENTS)/planner build
	$(PYTHON) -m venv $(ENVIRONMENTS)/planner
	$(ENVIRONMENTS)/planner/bin/python $(INSTALL) .
	$(ENVIRONMENTS)/planner/bin/parframe choose llama-3-8b --devices 8xH100
	! $(ENVIRONMENTS)/planner/bin/python -c 'import torch' 2> /dev/null
	test "$$(du -sm $(ENVIRONMENTS)/planner | cut -f 1)" -lt 300

quick:  ## within a minute, in the environment at hand: lint and the fast tests
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)pytest $(PYTEST_FLAGS) -m 'not slow'

lint:  ## in the environment at hand: lint, format, types, import contracts
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)lint-imports

docs:  ## in the environment at hand: write the generated parts of the documentation
	$(BIN)python docs/tables.py

golden:  ## in the environment at hand: write the golden outputs anew
	$(BIN)python -m tests.golden.write

bench:  ## in the environment at hand, with .[hf,bench]: print the figures of benchmarks/
	$(BIN)python -m benchmarks

fit:  ## in the environment at hand, with .[calibrate]: fit the constants of pricing; some minutes
	$(BIN)python -m benchmarks.calibration.fit

validate:  ## in the environment at hand, with .[calibrate,hf]: predictions against measured rows and own runs
	$(BIN)python -m benchmarks.calibration.report

faults:  ## in the environment at hand: inject every listed fault into running processes; some seconds each
	$(BIN)python -m benchmarks.faults

coverage:  ## in the environment at hand: survey all causal language models (an hour on 2 cores)
	$(BIN)parframe coverage --results .build/coverage.jsonl --output docs/coverage.md

clean:  ## remove environments and build products
	rm -rf $(ENVIRONMENTS) build *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
