# Every target is enough by itself on a fresh machine: it makes .venv first, once.
# TORCH_INDEX=URL takes torch from another package index, for example one of CPU-only or CUDA builds.
.DEFAULT_GOAL := help
.PHONY: help install demo test check format clean

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: .venv/.installed ## make .venv and install everything into it

demo: .venv/.installed ## build a phrase bank of this machine's own English, decode, serve, print a table
	$(BIN)/cellular demo

test: .venv/.installed .venv/prometheus ## run the whole test suite
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),$(BIN)/python -m pytest -n 2 tests/unit)
	$(if $(ARGS),,$(BIN)/python -m pytest tests/browser tests/cluster)
	$(if $(ARGS),,$(BIN)/python -m pytest -n 2 --dist loadfile tests/local)

check: .venv/.installed ## ruff, mypy and import-linter, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed ## let ruff mend and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv and every cache
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis

# torch first: what comes later is then content with that build, whichever index it is from. uv installs the rest in a
# third of pip's time; where only pip's own configuration says how to reach an index, pip does.
.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later with venv is needed: install it, or set PYTHON=..." >&2; exit 1; }
	@echo "Installing into .venv (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) uv
	$(UV) --editable '.[dev]' || $(PIP) --editable '.[dev]'
	@touch $@

# Debian's Prometheus, unpacked beside Python: it needs no root and starts no service. Where there is no apt, the tests
# that need it are skipped, and say so.
.venv/prometheus: | .venv/.installed
	-@mkdir -p $@.new && cd $@.new && set -- apt-get -qq -o APT::Sandbox::User=root && \
		{ "$$@" download prometheus || { "$$@" update && "$$@" download prometheus; }; } && \
		dpkg -x prometheus_*.deb . && rm prometheus_*.deb && mv ../prometheus.new ../prometheus
