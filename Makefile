# make demo   sets up everything, trains on cluttered digits, draws what it looked at
# make test   sets up everything, runs the tests
# Both work in .venv, made from PYTHON (at least 3.11).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/digits
# Processes that run tests side by side.
JOBS ?= 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format clean

$(VENV)/test.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cram_jax needs Python 3.11 or newer; \"$(PYTHON)\" is Python %d.%d. Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'
	@echo "Setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/test.stamp
	@$(INSTALL) --editable '.[dev]'
	@touch $@

demo: $(VENV)/test.stamp
	$(BIN)/python -m train fit --preset digits --workdir $(RUN)
	$(BIN)/python -m train evaluate --workdir $(RUN)
	@echo "Test images, true rectangle white, where the network looked yellow: $$(ls $(RUN)/pictures/*.png | tail -1)"

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
