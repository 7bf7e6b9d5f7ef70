# `make demo`: from a bare machine to captions. `make test`: every test. Both build .venv first.
# Needs Python 3.11, 3.12 or 3.13, with venv; another one than python3: make env PYTHON=python3.12

PYTHON ?= python3
SEED ?= 0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
PY := $(VENV)/bin/python
LOG := $(VENV)/pip.log
INSTALL := $(PY) -m pip --disable-pip-version-check --no-input install \
	--no-deps --no-build-isolation --no-compile
pin = $$(grep '^$(1)==' requirements/cpu.txt)
orlog = >>$(LOG) 2>&1 || { tail -n 25 $(LOG) >&2; echo "All of it: $(LOG)" >&2; exit 1; }

.PHONY: help env demo test faults scale lint format slurm-up slurm-down clean
.DELETE_ON_ERROR:

help:
	@echo "make env         builds $(VENV): recaption, editable, with the locked CPU and test packages"
	@echo "make demo        recaptions four small shards with the tiny model, in demo/"
	@echo "make test        every test, three files at a time (ARGS='-k name' picks)"
	@echo "make faults      kills tasks in 1,100 runs, in build/faults (SEED=N starts elsewhere)"
	@echo "make scale       larger runs than make test has time for: 2,500 tasks on Slurm"
	@echo "make lint        ruff and mypy"
	@echo "make format      lets ruff fix what it can"
	@echo "make slurm-up    starts a throwaway Slurm on this machine; make slurm-down ends it"
	@echo "make clean       removes what the targets made, $(VENV) too"

env: $(VENV)/.installed

# Rebuilt when a lock file changes.
$(VENV)/.locked: requirements/cpu.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "recaption needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one of them:" \
	       "try make env PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian and Ubuntu:" \
	       "apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the locked packages into $(VENV): a minute or two (log: $(LOG))"
	@$(INSTALL) "$(call pin,setuptools)" $(orlog)
	@$(INSTALL) "$(call pin,torch)" >>$(LOG) 2>&1 || { \
	  echo "Taking $(call pin,torch) from $(TORCH_CPU_INDEX)"; \
	  $(INSTALL) --retries 1 --index-url $(TORCH_CPU_INDEX) "$(call pin,torch)" $(orlog); }
	@$(INSTALL) -r requirements/cpu.txt -r requirements/dev.txt $(orlog)
	@# Compiled here, on all cores: otherwise every process pays where PYTHONDONTWRITEBYTECODE is set.
	@$(PY) -m compileall -qq -j 0 -x '/tests/|/testing/' $(VENV)/lib || true
	@touch $@

# Editable, so again only when the metadata or the entry points change.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(INSTALL) --editable . $(orlog)
	@touch $@

demo: env
	$(PY) -m recaption.demo

test: env
	@$(PY) -m compileall -qq -j 0 recaption tests || true
	$(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: env
	rm -rf build/faults
	$(PY) tests/faults/trials.py --forked 900 --launched 100 --seed $(SEED) --folder build/faults
	$(PY) tests/faults/two_nodes.py --trials 100 --seed $(SEED)

scale: env
	$(PY) -m pytest tests/scale/*.py $(ARGS)

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: env
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

slurm-up:
	slurm/up.sh

slurm-down:
	slurm/down.sh

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache
