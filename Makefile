# make sweep    a first sweep on this machine        make test    the test suite
# make check    linters and types                    make wheel   the package
# On a machine with GPUs: make sweep TORCH=torch. Otherwise torch is the pinned release, in the build that pip is set
# up to find: point pip at PyTorch's index of CPU builds to spare a machine without a GPU gigabytes of CUDA.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install sweep test check wheel clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --prefer-binary "$(TORCH)"
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

sweep: install
	$(RUN) -m amscale.sweep configs/quick.yaml

test: install
	$(RUN) -m pytest

check: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

wheel: install
	$(RUN) -m build --wheel

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
