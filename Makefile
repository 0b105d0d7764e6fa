# The commands that a person types. Each target first makes .venv and installs what it needs. A target that prints JSON
# prints nothing else on stdout.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes: none shall compile the program anew, as they do where an image sets this.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test versions test-ui matrix fuzz check bench chaos dev clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   run the main job for real: PostgreSQL, two S3 servers, Dagster (ARGS=\"--once --json\")"
	@echo "make test   run the tests               make check  ruff, mypy, the rules of the house"
	@echo "make versions  what make test leaves out: tests with the other of PostgreSQL 18 and 15, long stories"
	@echo "make bench  measure                     make chaos  break things on purpose"
	@echo "make matrix one story in each kind of environment (ARGS=\"--strength 3\": more of them)"
	@echo "make test-ui look at Dagster's UI in a browser (ARGS=--write-pictures: keep pictures and seconds for docs/)"
	@echo "make fuzz   the property tests with new random examples"
	@echo "make dev    Dagster with your settings  make clean  remove .venv"

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo 'making $(VENV) and installing everything, which takes a minute or two' >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --editable '.[dev]' >&2
	@touch $@

demo: $(BIN)/.installed
	@$(BIN)/python -m demo $(ARGS)

# Four processes on two cores: while some wait for a server or for Dagster's daemon, the others work.
IN_PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 1

test: $(BIN)/.installed
	$(BIN)/python -m pytest $(IN_PARALLEL) --versions=turns $(ARGS)

versions: $(BIN)/.installed
	$(BIN)/python -m pytest $(IN_PARALLEL) --versions=others $(ARGS)

test-ui: $(BIN)/.installed
	$(BIN)/python -m pytest -m ui wal_pipeline_tests/ui $(ARGS)

matrix: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --max-worker-restart 1 -m matrix wal_pipeline_tests/matrix $(ARGS)

fuzz: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --max-worker-restart 1 -m hypothesis --hypothesis-profile random $(ARGS)

check: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -p no:cacheprovider wal_pipeline_tests/test_house.py wal_pipeline_tests/test_architecture_document.py

bench: $(BIN)/.installed
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(BIN)/.installed
	@$(BIN)/python -m chaos $(ARGS)

dev: $(BIN)/.installed
	DAGSTER_HOME=$${DAGSTER_HOME:-$(CURDIR)/.dagster} $(BIN)/python -m wal_pipeline.cli dev $(ARGS)

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache
