PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint docs bench reproduce
.DELETE_ON_ERROR:

install: $(VENV)/.installed

# SpikingJelly is an independent oracle of the LIF tests, NeuroBench one of counts of operations. They come without their
# dependencies: torchvision and torchaudio, of them, would bring another build of torch.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "eisnn needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt --no-deps spikingjelly neurobench
	@touch $@

demo: install
	$(BIN)/eisnn demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# Into docs/_build/html; a warning is an error.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

bench: install
	$(BIN)/eisnn bench --model vgg8 --floor --output benchmarks/results/cpu_vgg8_b32.json

# Every table and figure of the paper, once, on a small net: a proof that all of it runs, in a quarter to half an hour on
# one core.
# On real CIFAR-10 images with DATA=path, else on the sample in the package. It continues where it was stopped.
# The larger budgets behind the committed tables are said in docs/results.md.
REPRODUCE := runs/reproduce
BUDGET := --epochs 2 --subset 1000 --test-images 500 --width 0.25 --batch-size 64 --lr 0.005 $(if $(DATA),--data-path $(DATA))
STUDIES := table1 table2 table3 figure4 figure5 figure6 figure7 figure8
.PHONY: $(STUDIES) table4

reproduce: $(STUDIES) table4

figure8: figure4 figure7 # whose networks it takes
figure7: figure4

$(STUDIES): install
	OMP_NUM_THREADS=1 $(BIN)/python experiments/$@.py $(BUDGET) $(if $(filter table1,$@),--models vgg8) \
		--output $(REPRODUCE)/$@ --runs $(REPRODUCE)/runs

table4: install
	$(BIN)/python experiments/table4.py --models vgg8 resnet18 --batch-size 8 --repeats 3 --output $(REPRODUCE)/table4
