# make demo | test | lab | book | docs | bench | clean. The first of them sets up its own environment in .venv; the next ones find it ready.
# Settings:  PYTHON=python3.13   PIP_ARGS="--extra-index-url ..."   OUT=demo   JOBS=2   PARTS="ceilings region"
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
CONSTRAINTS ?= constraints.txt
OUT      ?= demo
JOBS     ?= 2
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.ready

.PHONY: help setup demo test lab book docs bench clean
help:
	@sed -n '1,2s/^# //p' Makefile

setup: $(STAMP)

# Runs again only when what is to be installed has changed. `-qq` shows errors alone.
$(STAMP): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hipt_nb needs Python 3.11 or newer, and $(PYTHON) is not: install one and say 'make PYTHON=python3.13'"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) comes without venv: install it (Debian, Ubuntu: apt install python3-venv) and run make again"; exit 1; }
	@echo "Setting up $(VENV) (once): needs 6 GB of disk and takes some minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) $(PIP_ARGS) -e '.[dev,docs,encoders,baselines,tables,stain,cluster,dask,remote]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/hipt demo --out $(OUT)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations=8

# Open the notebooks in JupyterLab, which is installed on first use
lab: $(STAMP)
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) $(PIP_ARGS) jupyterlab
	@$(BIN)/jupyter-lab --notebook-dir=nbs

# Export, run every notebook from the first to the last, slow cells too, and store its outputs; then the README
book: $(STAMP)
	@$(BIN)/python docs/book.py $(NBS)
	@$(BIN)/python docs/readme.py

docs: $(STAMP)
	@$(BIN)/python docs/build.py

# Speed, measured side by side; PARTS names some of it, QUICK=1 takes smaller inputs, CLOCK=cpu suits a busy machine
bench: $(STAMP)
	@$(BIN)/python benchmarks/bench.py $(PARTS) $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(MACHINE),--machine $(MACHINE))

clean:
	@rm -rf _proc _docs docs/_src docs/_build build dist .pytest_cache *.egg-info
	@find hipt_nb nbs tests docs benchmarks -name __pycache__ -prune -exec rm -rf {} +
