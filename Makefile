# The verbs of this repository. Nothing but Python 3.11+, git and make is needed; `make bench` and the
# tests of it want a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: install run test soak soak-memory soak-money simulate bench train lint check-python clean figures

install: $(STAMP)  ## make .venv from the lock file

run: $(STAMP)  ## serve on 127.0.0.1:8000: live with OPENROUTER_API_KEY, else the sandbox
	@exec $(BIN)/python -m llmr.cli.run

test: $(DEV_STAMP)  ## every test
	@$(BIN)/python -m pytest -q -n 2

lint: $(DEV_STAMP)  ## style, types, and what grew too large
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(DEV_STAMP)  ## what a decision and a request cost here, beside nginx
	@$(BIN)/python -m bench

train: $(DEV_STAMP)  ## fit what prompts ask for, and measure it on prompts held out; minutes
	@$(PIP) install --require-hashes -r requirements-train.lock
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m training
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m training evaluate

figures: $(DEV_STAMP)  ## redraw the pictures of the README from the code and the data
	@$(BIN)/python tools/figures.py

check-python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3 python3-venv  (or: brew install python)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3.11 python3.11-venv, then make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python has no venv module here: apt-get install python3-venv"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: apt-get install git"; exit 1; }

$(BIN)/python: | check-python
	@echo "making $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV)

$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing from requirements.lock" >&2
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(STAMP)
	@echo "installing from requirements-dev.lock" >&2
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

soak: $(DEV_STAMP)  ## many random schedules of faults, in virtual time: whether an invariant breaks
	@SCHEDULES=10000 REQUESTS=100000 $(BIN)/python -m pytest -q -s tests/test_schedules.py \
		tests/test_privacy.py

simulate: $(DEV_STAMP)  ## regret of the choices in a simulated world, beside other ways to choose
	@$(BIN)/python -m simulation
	@$(BIN)/python -m simulation.conversations

soak-money: $(DEV_STAMP)  ## ten thousand mixed calls each: the ledger is the invoice, ceilings hold
	@CALLS=10000 $(BIN)/python -m pytest -q -s tests/test_money.py tests/test_ceilings.py

soak-memory: $(DEV_STAMP)  ## two million mixed requests: whether memory grows
	@$(BIN)/python -m bench --soak
