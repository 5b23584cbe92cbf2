# `make repro` regenerates every result, `make test` runs the tests; both make .venv if need be.
PYTHON ?= python3
PROFILE ?=
# Stages at a time on a machine of several GPUs.
JOBS ?= 1
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro plan test lint lock
.DELETE_ON_ERROR:

repro: .venv/installed
	$(if $(PROFILE),python -m pipelines select_profile $(PROFILE))
	python -m pipelines.warm $(if $(filter 1,$(JOBS)),dvc repro,python -m pipelines.parallel $(JOBS))
	python -m deeplab_bench.report.page
	python -m deeplab_bench.report.tables $(PROFILE)

# What `make repro` would cost; trains nothing.
plan: .venv/installed
	python -m deeplab_bench.plan $(PROFILE)

test: .venv/installed
	python -m pytest

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy

# The project itself is installed without its dependencies, which the lock file pins by hash.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11, 4) and \
		sys.exit("Python 3.11.4 or later is needed: make PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --require-hashes -r requirements.lock
	python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Needs uv (https://docs.astral.sh/uv).
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-header --output-file requirements.lock
