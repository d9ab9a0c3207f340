WORKERS ?= 1
VENV ?= .venv
CARILLON := $(VENV)/bin/carillon
ENVIRONMENT := pyproject.toml compose/install.sh $(wildcard compose/lock/*.txt)

.PHONY: up env lock test test-slow test-all check format bench standin standin-next clean

up: $(VENV)/.run  ## The whole fleet on this machine, until Ctrl-C
	@exec $(CARILLON) up --workers $(WORKERS)

env: $(VENV)/.dev

$(VENV)/.run: $(ENVIRONMENT)
	@compose/install.sh run $(VENV)
	@touch $@

$(VENV)/.dev: $(ENVIRONMENT)
	@compose/install.sh dev $(VENV)
	@touch $(VENV)/.run $@

lock: $(VENV)/.dev  ## Fix the versions of everything that pyproject.toml brings along
	VENV=$(VENV) compose/lock.sh

test: $(VENV)/.dev  ## What a change is likely to break, in minutes: every part, and the real engine
	$(VENV)/bin/pytest -q -rs -n 2 -m "not slow"

test-slow: $(VENV)/.dev  ## What takes long: processes killed under jobs and sessions, whole trainings
	$(VENV)/bin/pytest -q -rs -m slow

test-all: test test-slow  ## Everything that needs no accelerator

check: $(VENV)/.dev  ## Format, lint, types, and who may import whom
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.run  ## Decode and speech benchmarks; speech needs `make up` in another terminal
	$(CARILLON) bench decode
	$(CARILLON) bench speech

standin: $(VENV)/.dev  ## Make the stand-in checkpoint again, from nothing: hours on a CPU
	$(VENV)/bin/python -m training.standin all

standin-next: $(VENV)/.dev  ## Train the codec that is to follow the stand-in's, in .standin: a night on a CPU
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --no-deps --group standin
	$(VENV)/bin/python -m training.standin next

clean:  ## Forget the environment and every cache; keeps data/
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find app workers training tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +
