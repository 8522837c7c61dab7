# Every target installs what it needs into .venv by itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# An empty variable is as good as none, to the platform as well.
export MLPLATFORM_HOME := $(or $(MLPLATFORM_HOME),$(CURDIR)/.mlplatform)
export DAGSTER_HOME := $(or $(DAGSTER_HOME),$(MLPLATFORM_HOME)/dagster)
export DATASET ?=
# Tests that start no server and train nothing.
QUICK := architecture config datamodule docs/test_code.py docs/test_links.py preprocessing monitoring promotion/test_decision.py \
	test_cores.py test_locks.py test_plugins.py test_settings.py test_storage.py
# One process of tests more than there are cores, because they wait for processes and servers of their own; whole files,
# because their tests share what was trained once. COVERAGE=1 measures.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
SIDE_BY_SIDE := -n $(shell echo $$(($(CORES) + 1))) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
COVERAGE ?=
# uv reads a comma-separated list where pip reads a space-separated one.
empty :=
space := $(empty) $(empty)
comma := ,
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))

.PHONY: help setup demo demo-drift test test-quick lint format docs ui mlflow serve serve-ray stream bench clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# $(call install,<extras>): uv if it can be had, because it is many times faster; otherwise pip.
define install
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"Python 3.11 to 3.13 is needed, but {sys.executable} is {v[0]}.{v[1]}; set PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	echo "Installing mlplatform$(1) and the packages it needs into $(VENV), which takes minutes the first time"
	if $(BIN)/python -m pip install --quiet --constraint constraints.txt uv 2>/dev/null; then
		test -n "$$UV_FIND_LINKS" || unset UV_FIND_LINKS
		$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".$(1)"
	else
		echo "uv cannot be had, so pip installs, which takes longer"
		$(BIN)/python -m pip install --constraint constraints.txt --editable ".$(1)"
	fi
	echo "Installed"
	mkdir -p "$(DAGSTER_HOME)" && cp dagster.yaml "$(DAGSTER_HOME)/dagster.yaml"
	touch $@
endef

# Sets $$place to a folder in memory if there is room: the tests make databases by the hundred, and a disk would be waited
# for at every commit. What failed tests left is kept to be looked at.
define in_memory
	place=
	if [[ -w /dev/shm ]] && (( $$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1 || echo 0) > 4096 )); then
		place=$$(mktemp -d /dev/shm/mlplatform-XXXX)
		trap '[[ $$? == 1 ]] && echo "files of the tests are in $$place" || rm -rf "$$place"' EXIT
	fi
endef

$(VENV)/.base: pyproject.toml constraints.txt dagster.yaml
	$(call install,[all])

$(VENV)/.dev: pyproject.toml constraints.txt dagster.yaml
	$(call install,[dev])

$(VENV)/.bench: pyproject.toml constraints.txt dagster.yaml
	$(call install,[bench])

setup: $(VENV)/.base ## Install into .venv and prepare the state folder
	@mkdir -p "$(DAGSTER_HOME)" && cp dagster.yaml "$(DAGSTER_HOME)/dagster.yaml"

demo: setup ## Train, promote, serve and query a model, offline
	@$(BIN)/python -m mlplatform.demo

demo-drift: setup ## A failure that is learnt and a broken sensor that is not, replayed at high speed
	@$(BIN)/python -m mlplatform.demo_drift

test: $(VENV)/.dev ## Run all tests, on all cores (COVERAGE=1: print what they cover)
	@$(in_memory)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $${place:+--basetemp="$$place/tests"} \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered)

test-quick: $(VENV)/.dev ## Run the tests of a minute, without servers and training runs
	@$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(addprefix mlplatform_tests/,$(QUICK))

lint: $(VENV)/.dev ## Check style and types
	@$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## Build the documentation into build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	echo "python -m http.server --directory build/site 8080    # then http://127.0.0.1:8080"

ui: setup ## Dagster page and daemon on http://127.0.0.1:3000
	@$(BIN)/python -c 'from mlplatform.settings import check_dagster_home; check_dagster_home()'
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1 --port 3000

mlflow: setup ## MLflow page on http://127.0.0.1:5000
	@$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri \
		"$$($(BIN)/python -c 'from mlplatform.settings import Settings; print(Settings.from_env().mlflow_tracking_uri)')"

serve: setup ## Prediction server on http://127.0.0.1:8000 (EXPERIMENT=<name>, or several: a,b)
	@$(BIN)/python -m serving.local $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)')

serve-ray: setup ## The same routes from Ray Serve
	@$(BIN)/python -m serving.ray_app $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)')

stream: setup ## Take rows from the source of DATASET=<name> as they arrive
	@test -n "$${DATASET:-}" || { echo "name the dataset: make stream DATASET=<name>" >&2; exit 2; }
	$(BIN)/python -m mlplatform.streaming "$$DATASET"

bench: $(VENV)/.bench ## Run all benchmarks; one JSON object per figure
	@for program in benchmarks/*.py; do $(BIN)/python "$$program"; done

clean: ## Remove .venv and caches; the state in MLPLATFORM_HOME stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
