# Every command of the book. `make` alone lists them.
PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.installed
ARGS     ?=
CHAPTERS ?=

# Times and the last digits of small nets depend on the number of threads.
export OMP_NUM_THREADS := 1
# Without a screen MuJoCo renders through EGL.
ifeq ($(shell uname -s)$(DISPLAY),Linux)
export MUJOCO_GL ?= egl
endif
# JupyterLab refuses root unless told; containers often have no other user.
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help setup read test lint book html figures robots clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP)  ## create .venv with the tested packages (PYTHON=python3.12 picks the Python)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "This book needs Python >= 3.11: '$(PYTHON)' is missing or older; try: make setup PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "Installing the tested packages into $(VENV); this takes some minutes ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,offline,tensorboard,dev]"
	@touch $@

read: setup  ## open the first chapter in JupyterLab (ARGS="--no-browser --port=8899")
	$(BIN)/jupyter lab --config=chapters/jupyter_server_config.py $(ROOT) $(ARGS)

test: setup  ## unit tests, then every chapter run and compared with what it stores
	$(BIN)/python -m pytest tests $(ARGS)
	$(BIN)/python -m pytest --nbval chapters/ $(ARGS)

lint: setup  ## style, formatting, types, and which part may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

book: setup  ## chapters/text/*.py -> executed notebooks (CHAPTERS="02_meanflow" for some)
	$(BIN)/python chapters/make.py $(CHAPTERS)

html: setup  ## the book as static pages: build/html/index.html, works without network
	$(BIN)/python -m chapters.pages

figures: setup  ## redraw every file in figures/
	$(BIN)/python figures/make.py

robots: setup  ## film the recorded robots again: figures/robots.webp
	$(BIN)/python -m figures.robots

clean:  ## remove the environment and all caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
