# Two commands for a machine with Python 3.11+, git and make:
#   make demo    set up, embed the molecules of examples/data, find neighbours -> demo_output/
#   make test    set up, run the whole test suite                              -> test_output/
# Both create .venv on first use and reuse it afterwards. Beside them:
#   make test-common   transformers' own common model tests, downloaded, on tiny models of ours

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
PYTEST_ARGS ?=
# Processes that run tests; 0 runs them in one, for a debugger.
WORKERS ?= auto
COMMON := test_output/transformers

PY := $(VENV)/bin/python

.PHONY: help demo test test-common lint format clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.ready
	$(PY) examples/demo.py --out demo_output

test: $(VENV)/.ready-dev
	@mkdir -p test_output
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile --junitxml=test_output/junit.xml $(PYTEST_ARGS) \
	  && echo "All tests passed. Report: test_output/junit.xml; environment: $(VENV)" \
	  || { echo "Tests FAILED, see above. Report: test_output/junit.xml; environment: $(VENV)"; exit 1; }

# The tests are in the source distribution of transformers alone; that of the installed version is taken.
test-common: $(VENV)/.ready-dev
	@rm -rf $(COMMON) && mkdir -p $(COMMON)
	$(PY) -m pip download --disable-pip-version-check --no-deps --no-binary transformers -d $(COMMON) \
	  transformers==$$($(PY) -c 'from importlib.metadata import version; print(version("transformers"))')
	tar -xzf $(COMMON)/transformers-*.tar.gz -C $(COMMON) --strip-components 1
	HF_MOLREP_TRANSFORMERS_TESTS=$(COMMON)/tests $(PY) -m pytest tests/models/test_transformers_common.py $(PYTEST_ARGS)

lint: $(VENV)/.ready-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(VENV)/.ready-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output test_output .pytest_cache .ruff_cache

# A stamp is written last, so an interrupted set-up is taken up again. torch comes first, so that another build of it
# (TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu") stays in place.
$(VENV)/.torch:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; name yours: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, $(PYTHON) is older; name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "[1/3] Creating $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@echo "[2/3] Installing $(TORCH): some minutes, the largest download"
	$(PY) -m pip install --disable-pip-version-check $(TORCH)
	@touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	@echo "[3/3] Installing hf_molrep and what it needs"
	$(PY) -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.torch pyproject.toml
	@echo "[3/3] Installing hf_molrep, what it needs, pytest and ruff"
	$(PY) -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.ready
