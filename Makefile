# `make tune PART=wrist` and `make test` set everything up themselves; the rest is listed by `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PART ?= wrist
DATA ?= demo
RECIPE ?= inception_add_gate
# Of every `pip install`, such as an index of CPU wheels: PIP_ARGS='--extra-index-url https://...'
PIP_ARGS ?=
ARGS ?=
MINUTES ?= 30
SEED ?= 0
UI_PORT ?= 5000
SERVE_PORT ?= 5001
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)

BIN := $(CURDIR)/.venv/bin
# `mlflow run` and `mlflow models serve` look up the command that they start on the path.
IN_VENV := PATH="$(BIN):$$PATH"
WITH_SOURCES := PYTHONPATH="$(CURDIR)/platform:$(CURDIR)"

export MLFLOW_DISABLE_TELEMETRY := true

# pip's own output is hundreds of lines, or nothing for a minute while it unpacks: a line every ten seconds instead.
define pip_install
( while sleep 10 > /dev/null 2>&1 && kill -0 $$$$ 2> /dev/null; do \
		echo "  ... .venv has $$(du -sm .venv 2> /dev/null | cut -f1) MB so far"; done ) & \
	trap "kill $$! 2> /dev/null || true" EXIT; \
	"$(BIN)/python" -m pip install --quiet --progress-bar off --disable-pip-version-check $(PIP_ARGS)
endef

.PHONY: help setup setup-dev tune train ui serve app soak test slow chaos check generate docs format bench bench-full clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' \
		|| { echo 'Python 3.11, 3.12 or 3.13 is required: make PYTHON=/path/to/python3.11 ...' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null \
		|| { echo 'This Python cannot create environments; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@echo 'Installing the requirements into .venv: some 3 minutes, 7 GB of disk (10 GB meanwhile) ...'
	@"$(PYTHON)" -m venv .venv
	@$(pip_install) -r requirements.txt
	@touch $@

# The command by its name, of the checkout that the environment lies in; it works from every folder.
.venv/bin/muralab: .venv/installed
	@printf '%s\n' '#!/bin/sh' 'root="$$(cd "$$(dirname "$$0")/../.." && pwd)"' \
		'PYTHONPATH="$$root/platform:$$root$${PYTHONPATH:+:$$PYTHONPATH}" exec "$$root/.venv/bin/python" -m muralab "$$@"' > $@
	@chmod +x $@

.venv/installed-dev: .venv/installed requirements-dev.txt | .venv/bin/muralab
	@echo 'Installing what tests, checks and docs need as well: some 2 minutes, 1 GB more ...'
	@$(pip_install) -r requirements-dev.txt
	@touch $@

setup: .venv/bin/muralab ## install what `make tune` and all commands need, into .venv

setup-dev: .venv/installed-dev ## install what tests, checks and docs need as well

tune: .venv/bin/muralab ## the main job: tune and compare several recipes, register the best model (PART, DATA, ARGS='-P trials=4')
	@[ -n "$${MLFLOW_TRACKING_URI:-}" ] || [ -s mlflow.db ] || $(IN_VENV) $(WITH_SOURCES) python -m muralab sync > /dev/null
	@$(IN_VENV) mlflow run . -e tune -P part="$(PART)" -P data="$(DATA)" --env-manager local \
		--experiment-name "$${MLFLOW_EXPERIMENT_NAME:-mura-$(PART)}" $(ARGS)

train: .venv/bin/muralab ## one recipe without a search (RECIPE, PART, DATA, ARGS)
	@$(IN_VENV) mlflow run . -e train -P recipe="$(RECIPE)" -P part="$(PART)" -P data="$(DATA)" --env-manager local \
		--experiment-name "$${MLFLOW_EXPERIMENT_NAME:-mura-$(PART)}" $(ARGS)

ui: .venv/bin/muralab ## browse the runs in MLflow at http://127.0.0.1:5000 (UI_PORT)
	@echo 'Open http://127.0.0.1:$(UI_PORT)/#/experiments?workflowType=machine_learning (Ctrl-C ends it)'
	@$(IN_VENV) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		PYTHONWARNINGS='ignore:starlette.middleware.wsgi is deprecated' mlflow ui --workers 1 --host 127.0.0.1 --port $(UI_PORT) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

serve: .venv/bin/muralab ## serve the registered model at http://127.0.0.1:5001 (PART, SERVE_PORT)
	@$(IN_VENV) mlflow models serve -m "models:/mura-$(PART)@champion" --env-manager local \
		--host 127.0.0.1 --port $(SERVE_PORT) \
		|| { code=$$?; echo 'Not served: the last line above names the reason. Where no model is registered,' \
			'make tune PART="$(PART)" registers one if it beats chance; its last screen says so.' >&2; exit $$code; }

app: .venv/bin/muralab ## the same with request limits, plain error messages and a web page (PART, SERVE_PORT, ARGS='--token-file ...')
	@$(IN_VENV) $(WITH_SOURCES) python -m muralab app --model "models:/mura-$(PART)@champion" --port $(SERVE_PORT) $(ARGS)

test: .venv/installed-dev ## all tests, in parallel, with coverage
	@$(IN_VENV) python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-fail-under=85

slow: .venv/installed-dev ## the tests that take minutes each, much of them spent waiting: at most 45 minutes
	@$(IN_VENV) python -m pytest -m long -n 3 --dist loadfile --no-loadscope-reorder

chaos: .venv/installed-dev ## 40 sweeps that are killed, starved and cut off, compared with an undisturbed one: about an hour (SEED)
	@$(IN_VENV) SEED="$(SEED)" python -m pytest tests/chaos -m chaos

check: .venv/installed-dev ## style, types, import layers and tests of the repository itself: under a minute
	@$(IN_VENV) ruff check .
	@$(IN_VENV) ruff format --check .
	@$(IN_VENV) mypy
	@$(IN_VENV) $(WITH_SOURCES) lint-imports
	@$(IN_VENV) python -m pytest tests/test_house.py tests/test_recipes.py tests/test_mlproject.py

bench: .venv/installed-dev ## measure every performance target, in one table: under 20 minutes (ONLY='steps input')
	@$(IN_VENV) $(WITH_SOURCES) OMP_NUM_THREADS=1 python -m bench.run $(ONLY) --markdown bench-results.md $(BENCH_ARGS)

bench-full: .venv/installed-dev ## the same with more rounds, larger inputs and several seeds: several hours
	@$(IN_VENV) $(WITH_SOURCES) OMP_NUM_THREADS=1 python -m bench.run --full $(ONLY) --markdown bench-full-results.md $(BENCH_ARGS)

soak: .venv/installed-dev ## load both servers with valid, invalid and random requests for half an hour (MINUTES, ARGS='--model ...')
	@$(IN_VENV) $(WITH_SOURCES) python -m bench.soak --minutes $(MINUTES) $(ARGS)

generate: .venv/installed-dev ## write the pages of the docs that are made from the code: after a change of a recipe, metric or tag
	@$(IN_VENV) $(WITH_SOURCES) python docs/generate.py

docs: .venv/installed-dev ## the docs as a site, in site/
	@$(IN_VENV) $(WITH_SOURCES) NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet && echo site/index.html

format: .venv/installed-dev ## fix style and format the code with ruff
	@$(IN_VENV) ruff check --fix .
	@$(IN_VENV) ruff format .

clean: ## remove the caches of the checks; runs, models and the environment stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .coverage.* htmlcov
