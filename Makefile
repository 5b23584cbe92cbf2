# `make repro` regenerates every result, `make test` runs the tests; both make .venv if need be.
PYTHON ?= python3
# The profile and the study to run; without them, what params.yaml says.
PROFILE ?=
STUDY ?=
# Stages side by side; without it, one on a GPU, and on a CPU as many as have cores for their threads.
JOBS ?=
# Where they run: `auto` (Ray on this machine), `slurm`, or HOST:PORT of a Ray cluster.
CLUSTER ?=
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: repro plan verify compare cite dag chaos submit test lint lock
.DELETE_ON_ERROR:

repro: .venv/installed
	$(if $(PROFILE)$(STUDY),deeplab-bench select --profile "$(PROFILE)" --study "$(STUDY)")
	deeplab-bench repro $(if $(JOBS),--jobs $(JOBS)) $(if $(CLUSTER),--cluster $(CLUSTER))

# Says what `make repro` would run and what it costs; trains nothing.
plan: .venv/installed
	deeplab-bench plan $(PROFILE)

# Makes committed runs again in a clone, and says whether they come out the same.
verify: .venv/installed
	deeplab-bench verify $(PROFILE)

# Draws the graph of the stages.
dag: .venv/installed
	deeplab-bench dag

# Says which rows of the committed results changed: make compare A=v0.2.0 B=HEAD
compare: .venv/installed
	deeplab-bench compare "$(or $(A),$(error give a version, as in make compare A=v0.2.0))" "$(or $(B),HEAD)" $(if $(PROFILE),--profile $(PROFILE))

# Prints BibTeX, the line for a table and a sentence: make cite MODEL=aspp
cite: .venv/installed
	deeplab-bench cite "$(or $(MODEL),$(error give a model, as in make cite MODEL=aspp))" $(if $(PROFILE),--profile $(PROFILE))

# Kills a tiny run at random, again and again, and says whether its results stay the same.
chaos: .venv/installed
	python -m studies.chaos $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

# Packs predictions of Pascal VOC's test images for its evaluation server (docs/voc2012.md).
submit: .venv/installed
	deeplab-bench submit "$(MODEL)" --images "$(IMAGES)" $(if $(SEED),--seed $(SEED)) \
		$(if $(PROFILE),--profile $(PROFILE)) $(if $(INFERENCE),--inference $(INFERENCE)) \
		$(if $(CRF),--crf)

# Two more processes than there are cores, since many tests wait for other programs.
test: .venv/installed
	python -m pytest --dist worksteal \
		--numprocesses $$(python -c 'import os; print(min(os.cpu_count() + 2, 6))')

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy

# The project itself is installed without its dependencies, which the lock file pins by hash. pip shows
# its progress in a terminal alone: elsewhere it would be a line for each file. vega.js draws DVC's plots.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11, 4) and \
		sys.exit("Python 3.11.4 or later is needed: make PYTHON=python3.12, say")'
	@echo 'Installing what requirements.lock pins into .venv: 6 GB, about 3 minutes on a fast network.'
	$(PYTHON) -m venv .venv
	python -m pip install $$(test -t 2 || echo --quiet) --require-hashes -r requirements.lock
	python -m pip install --quiet --no-deps --no-build-isolation --editable .
	python -c 'import pathlib, vl_convert; \
		pathlib.Path(".venv/vega.js").write_text(vl_convert.javascript_bundle(), "utf-8")'
	touch $@

# Needs uv (https://docs.astral.sh/uv).
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-header --output-file requirements.lock
