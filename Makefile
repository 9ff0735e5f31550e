# make sweep    a first sweep on this machine        make test        the whole test suite
# make check    linters and types                    make quick-test  the tests that take seconds: 2 minutes
# make bench    all benchmarks, one table; 30 minutes    make wheel       the package
# make docs     the documentation as a site, in site/    make results    the sweeps of docs/results.md, and the page; hours
# On a machine with GPUs: make sweep TORCH=torch. Otherwise torch is the pinned release, in the build that pip is set
# up to find: point pip at PyTorch's index of CPU builds to spare a machine without a GPU gigabytes of CUDA.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install sweep test quick-test check docs bench results wheel clean

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (sys.platform.startswith("linux") and sys.version_info >= (3, 11)))' \
	  2>/dev/null || { echo "amscale needs Linux and Python 3.11 or newer; '$(PYTHON)' here is" \
	  "$$($(PYTHON) --version 2>&1 || true), $$(uname -s). Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --prefer-binary "$(TORCH)"
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

sweep: install
	$(RUN) -m amscale.sweep configs/quick.yaml

# Trackers are tested against their own stores, the notebook of the docs in a kernel; a sweep needs none of them.
$(VENV)/.tested: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[mlflow,notebook,trackio,wandb]"
	touch $@

test: install $(VENV)/.tested
	$(RUN) -m pytest

quick-test: install
	$(RUN) -m pytest -m "not slow"

check: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Its packages are apart from those of the tests, which need none of them. The variable turns off an announcement.
$(VENV)/.docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --clean --strict --quiet

bench: install
	$(RUN) benchmarks/all.py

# Trains what is missing in results/, archives and fits it, and writes the page and the findings in README.md.
results: install
	$(RUN) findings/results.py

wheel: install
	$(RUN) -m build --wheel

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
