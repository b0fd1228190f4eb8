PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint bench reproduce
.DELETE_ON_ERROR:

install: $(VENV)/.installed

# SpikingJelly is an independent oracle of the LIF tests. It comes without its dependencies: torchvision, one of them,
# would bring another build of torch.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "eisnn needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt --no-deps spikingjelly
	@touch $@

demo: install
	$(BIN)/eisnn demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/eisnn bench --model vgg8 --floor --output benchmarks/results/cpu_vgg8_b32.json

# The numbers of this README that do not take hours, once more.
reproduce: install bench
	$(BIN)/python experiments/demo_seeds.py --seeds 3
	$(BIN)/python experiments/kill_resume.py --kills 20 --seed 0
