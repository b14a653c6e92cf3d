# FusionReID: `make reproduce` sets everything up and runs the notebooks, `make test` sets everything up and tests it.
# Needs Python 3.10 or newer and make; everything else goes into .venv.

PYTHON  ?= python3
PROFILE ?= $(or $(FUSIONREID_PROFILE),demo)
ARGS    ?=
# "cpu" installs PyTorch without its 4 GB of packages for GPUs: make setup BACKEND=cpu
BACKEND ?=
WORKERS ?= 2

VENV := .venv
BIN  := $(VENV)/bin
DONE := $(VENV)/.installed
PINNED := $(if $(BACKEND),--torch-backend $(BACKEND) -c requirements.lock -e '.[all]',-r requirements.lock)
DATA := $(or $(FUSIONREID_DATA),data)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce market gpu test test-nbclient test-browser test-slurm site lint lab lock clean

help:  ## list these targets
	@echo "make <target>, with PROFILE=smoke|demo|paper (default: $(PROFILE)):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

setup: $(DONE)  ## install everything into .venv, as pinned in requirements.lock

$(DONE): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "setup: $(PYTHON) is missing or older than Python 3.10; say which to use: make setup PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || rm -rf $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "setup: $(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)"; exit 1; }
	@export VIRTUAL_ENV="$(CURDIR)/$(VENV)"; \
	  { $(BIN)/uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv; } && \
	  $(BIN)/uv pip install $(PINNED) && $(BIN)/uv pip install --no-deps -e . || { \
	    [ -z "$(BACKEND)" ] || exit 1; \
	    echo "setup: uv failed; trying pip, which is slower"; \
	    $(BIN)/python -m pip install --quiet -r requirements.lock && $(BIN)/python -m pip install --quiet --no-deps -e .; }
	@touch $@

reproduce: setup  ## run every notebook, headless (PROFILE=demo: a laptop; ARGS="--only 03 05" for some)
	$(BIN)/python -m fusionreid reproduce --profile $(PROFILE) $(ARGS)

market: setup  ## train on a real set and write a report (ROOT=/data PROFILE=paper ARGS="--dataset msmt17 --estimate")
	$(BIN)/python benchmarks/market.py --root $(or $(ROOT),$(DATA)) --profile $(PROFILE) $(ARGS)

gpu: setup  ## measure, train and draw all that wants a GPU, on one card, for about an hour (ARGS=--smallest: a trial)
	$(BIN)/python benchmarks/gpu.py --data-root $(DATA) $(ARGS)

# Rendered before the tests, which share it: the body model's own cache is made on its first use, by one process.
$(DATA)/synthetic/smoke-0/manifest.json: | $(DONE)
	$(BIN)/python -m fusionreid data synthetic --size smoke --root $(DATA)

test: setup $(DATA)/synthetic/smoke-0/manifest.json  ## run the tests, and every notebook at smoke size (ARGS="-m 'not slow'": three minutes)
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 FUSIONREID_PROFILE=smoke \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --nbval-lax --nbval-current-env tests notebooks $(ARGS)

test-nbclient: setup $(DATA)/synthetic/smoke-0/manifest.json  ## run every notebook at smoke size by nbclient, without nbval
	FUSIONREID_NBCLIENT=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/python -m pytest tests/notebooks/test_nbclient.py $(ARGS)

test-slurm: setup  ## a job a run on a Slurm of this machine alone (root; Debian: slurm-wlm and munge)
	FUSIONREID_SLURM=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/python -m pytest -rs tests/slurm $(ARGS)

test-browser: setup  ## run 00, 01 and 13 in Chromium and move every widget of 13
	$(BIN)/python -m playwright --version >/dev/null 2>&1 || $(BIN)/uv pip install -e '.[browser]' || \
	  $(BIN)/python -m pip install --quiet -e '.[browser]'
	OMP_NUM_THREADS=1 TQDM_DISABLE=1 FUSIONREID_BROWSER=1 FUSIONREID_PROFILE=$(PROFILE) FUSIONREID_DATA=$(abspath $(DATA)) \
	  $(BIN)/python -m pytest -q -s tests/browser $(ARGS)

# Jupyter Book 1 builds without a network; it has an environment of its own, as it pins old packages.
site: build/book/bin/jupyter-book  ## the committed notebooks as a site in build/site/; nothing is executed
	build/book/bin/jupyter-book build . --config site/_config.yml --toc site/_toc.yml --path-output build/site

build/book/bin/jupyter-book:
	$(PYTHON) -m venv build/book
	build/book/bin/pip install --quiet 'jupyter-book==1.0.4.post1'

lint: setup  ## check style with ruff (and mend it: .venv/bin/ruff format .)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: setup  ## open the notebooks in JupyterLab, on this machine only
	$(BIN)/jupyter lab --ip=localhost notebooks $(ARGS)

lock: setup  ## resolve pyproject.toml into requirements.lock anew, for Linux and macOS
	$(BIN)/uv pip compile --universal --python-version 3.10 --extra all pyproject.toml -o requirements.lock

clean:  ## remove executed notebooks, caches and .venv; keeps data/ and the trained runs
	rm -rf $(VENV) runs/notebooks runs/figures .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
