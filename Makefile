# Two commands do everything on a machine with Python 3.11 or newer, git and make:
#   make demo    the main job on the embedded dataset: raw files -> features -> runs -> tables
#   make test    all tests
# Each sets up .venv from the pinned requirements if it is not there.

PYTHON ?= python3
UV := .uv/bin/uv
UV_VERSION := 0.13.9
BIN := .venv/bin
SOURCES := src tests
# Tests of the cluster mostly wait: two workers more than there are cores.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
SNAKEFILES := Snakefile workflow

.PHONY: demo imbalance test check check-style check-types check-workflow format light lock environment

# One process per core, and each of them single-threaded, is what a small machine does best.
export OMP_NUM_THREADS ?= 1
# Every job is a process of its own, which would compile the package anew.
export PYTHONDONTWRITEBYTECODE =

demo: environment
	$(BIN)/snakemake --profile profiles/local --quiet host reason
	@$(MAKE) --no-print-directory --jobs 2 results/report.html results/snakemake-report.html
	@cat results/tables/main.md

# One page to send: tables, figures, data, settings, environment, runs.
results/report.html: results/tables/main.csv results/figures/curves-digits.png
	$(BIN)/python -m amst report
	@touch $@

# Snakemake's own report: the same tables and figures with captions, run times and rules.
results/snakemake-report.html: results/tables/main.csv results/figures/curves-digits.png
	$(BIN)/snakemake --report $@ --quiet all
	@touch $@

# The imbalance that the suite is about, on the embedded dataset with five seeds.
imbalance: environment
	$(BIN)/snakemake results/tables/main.csv results/tables/unimodal.csv --profile profiles/local \
	  --quiet host reason --configfile workflow/configs/imbalance.yaml
	@cat results/tables/unimodal.md

test: environment
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: check-types check-workflow check-style

check-style: environment
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/snakefmt --check $(SNAKEFILES)

check-types: environment
	$(BIN)/mypy

check-workflow: environment
	$(BIN)/snakemake --lint

format: environment
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/snakefmt $(SNAKEFILES)

# Plans, dry runs, status, tables and figures, for a laptop or a login node: no torch, some 520 MB.
light: $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-light
	$(UV) pip sync --python .venv-light --quiet --compile-bytecode --require-hashes containers/requirements-light.txt
	echo "$(CURDIR)/src" > "$$(.venv-light/bin/python -c 'import site; print(site.getsitepackages()[0])')/amst.pth"
	printf '#!%s\nfrom amst.cli import main\n\nmain()\n' "$(CURDIR)/.venv-light/bin/python" > .venv-light/bin/amst
	chmod +x .venv-light/bin/amst
	@echo "ready: .venv-light/bin/snakemake -n, .venv-light/bin/amst plan, .venv-light/bin/amst status, .venv-light/bin/amst tables"

environment: .venv/.installed

.venv/.installed: containers/requirements-dev.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --require-hashes containers/requirements-dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(UV):
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet uv==$(UV_VERSION)

# The pinned packages of the image and of this machine, from what pyproject.toml asks for.
lock: $(UV)
	$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra run pyproject.toml --output-file containers/requirements.txt
	$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --extra run --extra dev pyproject.toml \
	  --constraints containers/requirements.txt --output-file containers/requirements-dev.txt
	$(UV) pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header pyproject.toml \
	  --constraints containers/requirements.txt --output-file containers/requirements-light.txt
