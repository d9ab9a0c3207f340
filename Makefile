WORKERS ?= 1
VENV ?= .venv
CARILLON := $(VENV)/bin/carillon
# Without compiled modules beside the sources, as this asks for, each of a fleet's processes compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE
ENVIRONMENT := pyproject.toml compose/install.sh $(wildcard compose/lock/*.txt)

.PHONY: up env lock lock-clients test test-slow test-browser test-real test-all test-clients soak screenshots check audit \
	format bench standin clean

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

# Tests wait for a third of their time: on two cores three processes do.
PROCESSES ?= 3

test: $(VENV)/.dev  ## What a change is likely to break: every part, and the real engine
	$(VENV)/bin/pytest -q -rs -n $(PROCESSES) -m "not slow"

test-slow: $(VENV)/.dev  ## What takes long: processes killed under jobs and sessions, whole trainings
	$(VENV)/bin/pytest -q -rs -n 2 -m slow

test-browser: $(VENV)/.dev  ## The console in a real Chromium (apt-get install chromium), on a running fleet
	$(VENV)/bin/pytest -q -rs tests/browser

test-real: $(VENV)/.dev  ## The api and integration tests on PostgreSQL, a Redis with TLS and ACL, and another S3
	TEST_SERVICES=real $(VENV)/bin/pytest -q -rs -n 2 -m "not slow and not engine" \
	    tests/api tests/integration tests/unit/test_catalog.py tests/unit/voices tests/unit/narration

HOURS ?= 8

soak: $(VENV)/.dev  ## A fleet under faults for HOURS (8); SEED=N does again what was done with it
	$(VENV)/bin/python -m tests.soak --hours $(HOURS) $(if $(SEED),--seed $(SEED))

screenshots: $(VENV)/.dev  ## Pictures of the console of the fleet that runs here, for the README
	$(VENV)/bin/python -m tests.browser.screenshots

test-all: test test-slow  ## Everything but the browser, the real services and others' clients

CLIENTS := .venv-clients

test-clients: $(CLIENTS)/.installed  ## The SDKs and frameworks that people have, against a running fleet, in ten minutes
	$(CLIENTS)/bin/pytest -q -rs -c tests/clients/pytest.ini --rootdir tests/clients tests/clients

$(CLIENTS)/.installed: tests/clients/requirements.txt tests/clients/package.json | $(VENV)/.dev
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(CLIENTS)
	$(VENV)/bin/uv pip install --quiet --python $(CLIENTS)/bin/python --requirement tests/clients/requirements.txt
	cp tests/clients/package.json $(CLIENTS)
	@if command -v npm >/dev/null; then cd $(CLIENTS) && npm install --silent --no-package-lock --ignore-scripts \
	    || echo "npm has no openai for us: its test is left out"; fi
	@touch $@

lock-clients: $(VENV)/.dev  ## Fix the versions of the clients again
	$(VENV)/bin/uv pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 \
		tests/clients/requirements.in --output-file tests/clients/requirements.txt

check: $(VENV)/.dev audit  ## Format, lint, types, who may import whom, and known vulnerabilities where they can be asked for
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright

LOCKS := cpu gpu dev

audit: $(VENV)/.dev  ## Known vulnerabilities in what the locks install, by a database on the internet
	VENV=$(VENV) compose/audit.sh $(LOCKS:%=compose/lock/%.txt)

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.run  ## Decode and speech benchmarks; speech needs `make up` in another terminal
	$(CARILLON) bench decode
	$(CARILLON) bench speech

standin: $(VENV)/.dev  ## Make the stand-in checkpoint again, in .standin: a night on a CPU
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --no-deps --group standin
	$(VENV)/bin/python -m training.standin all

clean:  ## Forget the environment and every cache; keeps data/
	rm -rf $(VENV) $(CLIENTS) .pytest_cache tests/clients/.pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find app workers training tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +
