# Two commands matter: `make demo` and `make test`. Each sets up what it needs.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Containers like to set it. Then each process compiles the project anew, each that tests the tests too.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/pytest
# Checks import the settings; with every address given none of them starts a server.
NO_SERVERS := DATABASE_URL=postgresql://nobody@127.0.0.1:1/none BROKER_URL=redis://127.0.0.1:1/0 \
	COUNTERS_URL=redis://127.0.0.1:1/0 SECRET_KEY=checks-only
APPS := audit schedules delivery frontend scheduler_project stubs benchmarks deploy tests manage.py

# Tests at once. Those that are no unit tests wait now and then, chaos more than it works.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
WAITING_WORKERS := $(shell echo $$(($(WORKERS) + 1)))

# What the unit tests are about: the rooms that need no server. The rest is for the integration tests.
UNIT_TESTED := schedules/recurrence/*,schedules/audience/tree.py,schedules/audience/parser.py,schedules/audience/values.py,\
schedules/audience/instants.py,schedules/audience/matching.py,schedules/content.py,schedules/template_language.py,\
schedules/definition.py,schedules/outgoing/*,schedules/permissions.py,schedules/problems.py,schedules/imports/columns.py,\
schedules/imports/csv_rows.py,schedules/imports/ndjson_rows.py,schedules/imports/delimited.py,schedules/imports/lines.py,\
schedules/imports/rows.py,schedules/imports/values.py,delivery/rendering.py,delivery/rendering_limits.py,\
delivery/formats.py,delivery/retry.py,delivery/remote_rendering/*,delivery/providers/*,scheduler_project/local/supervisor.py,\
scheduler_project/local/services.py,scheduler_project/demo/people.py,scheduler_project/demo/environment.py
space := $(subst ,, )
TRANSLATIONS := $(patsubst %.po,%.mo,$(wildcard frontend/locale/*/LC_MESSAGES/*.po))

.PHONY: setup docs messages screenshots programs demo cluster test lint types rules bench day chaos soak openapi dashboards fmt lock clean help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/.installed $(TRANSLATIONS) ## a virtual environment with the pinned dependencies, and the translations

.venv/.installed: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@# constraints.txt is whole, so nothing is resolved; and compiled on all cores. Some packages hold files of other Pythons.
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-compile -r constraints.txt
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

%.mo: %.po | .venv/.installed
	@$(BIN)/python -m scheduler_project.catalogue compile

messages: setup ## find the strings of pages and templates, for their translations
	$(BIN)/python -m scheduler_project.catalogue find

screenshots: setup programs ## pictures of every page below .local/screenshots, and those of the docs
	$(BIN)/python -m tests.screenshots $(ARGS)

programs: ## what tests use of the system's packages, where they may be installed: Chromium, promtool, HAProxy ...
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null; \
		else echo "No Chromium found: install it with your system's package manager to run the browser tests."; fi; }
	@command -v promtool >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus >/dev/null; } \
		|| echo "No promtool found: install Prometheus with your system's package manager to have /metrics checked by it."
	@command -v redis-server redis-check-rdb >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-tools >/dev/null; } \
		|| echo "No Redis with TLS found: install your system's redis-tools to have TLS to Redis tested."
	@# Debian starts servers that it installs, unless invoke-rc.d's policy forbids it: ours run for make cluster alone.
	@for name in pgbouncer haproxy; do \
		PATH=$$PATH:/usr/sbin command -v $$name >/dev/null && continue; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			policy=/usr/sbin/policy-rc.d; \
			if [ -e $$policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; fi; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$name >/dev/null; \
			[ -z "$$policy" ] || rm -f $$policy; \
			systemctl disable --quiet $$name 2>/dev/null; \
		fi; \
		PATH=$$PATH:/usr/sbin command -v $$name >/dev/null \
			|| echo "No $$name found: install it with your system's package manager for make cluster and its tests."; done

demo: setup ## the whole service with demo data; Ctrl-C ends it
	@$(BIN)/python manage.py demo $(ARGS)

cluster: setup programs ## everything twice behind a proxy, with PgBouncer and a Redis Cluster; Ctrl-C ends it
	@$(NO_SERVERS) $(BIN)/python manage.py cluster $(ARGS)

test: setup programs ## every test; coverage of unit and integration tests apart
	$(BIN)/coverage erase
	COVERAGE_FILE=.coverage.unit $(PYTEST) tests/unit -n $(WORKERS) --cov --cov-report= -q
	COVERAGE_FILE=.coverage.integration $(PYTEST) tests/integration tests/conformance tests/surface -n $(WAITING_WORKERS) --dist worksteal --cov --cov-report= -q
	$(PYTEST) tests/chaos tests/journeys -n $(WAITING_WORKERS) --dist loadfile --no-loadscope-reorder -q
	@echo "Unit coverage:" && COVERAGE_FILE=.coverage.unit $(BIN)/coverage report --format=total --include='$(subst $(space),,$(UNIT_TESTED))' | tee /dev/stderr | { read total; test "$$total" -ge 80; }
	@echo "Integration coverage:" && COVERAGE_FILE=.coverage.integration $(BIN)/coverage report --format=total | tee /dev/stderr | { read total; test "$$total" -ge 70; }

lint: setup ## style, types, layers, migrations, the documents
	@$(MAKE) --no-print-directory -j2 types rules docs

types: setup
	$(NO_SERVERS) $(BIN)/mypy --cache-dir=/dev/null  # the Django plugin mistakes a warm cache

rules: setup
	$(BIN)/ruff check $(APPS)
	$(BIN)/ruff format --check $(APPS)
	$(BIN)/lint-imports
	@! git rev-parse -q --git-dir >/dev/null 2>&1 || git ls-files | grep -vE '\.(png|svg|woff2?|lock)$$|^constraints.txt$$' | xargs \
		$(BIN)/detect-secrets-hook $(foreach no,HexHighEntropyString Base64HighEntropyString KeywordDetector IPPublicDetector \
		ArtifactoryDetector,--disable-plugin $(no))
	$(BIN)/uv pip check --quiet
	$(NO_SERVERS) $(BIN)/python manage.py makemigrations --check --dry-run
	$(NO_SERVERS) $(BIN)/python manage.py check
	$(NO_SERVERS) $(BIN)/python manage.py spectacular --validate --fail-on-warn | diff - docs/openapi.yaml || { echo "The API's document has drifted: make openapi"; exit 1; }

bench: setup ## the figures that the README quotes (but the million's), one JSON object a line
	@for name in audience tick caps storm punctuality throughput api; do $(BIN)/python -m benchmarks.$$name || exit 1; done

day: setup ## a day of ten million deliveries over half a million schedules, by the test clock
	@$(BIN)/python -m benchmarks.day $(ARGS)

chaos: setup ## kill, cut off and race the service; an oracle counts who was lost, doubled, haunted or stuck
	@$(BIN)/python -m tests.chaos.program $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: setup ## an hour's traffic at twenty times its speed, with bounces, silence, an outage and a second provider
	@$(BIN)/python -m tests.chaos.soak $(if $(SEED),--seed $(SEED)) $(ARGS)

dashboards: setup ## write Grafana's boards anew
	$(BIN)/python -m deploy.grafana $(ARGS)

docs: setup ## the documents as a site below .local/site, links checked
	@$(BIN)/python -m deploy.site $(ARGS)

openapi: setup ## write the API's document anew
	$(NO_SERVERS) $(BIN)/python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

fmt: setup ## format and mend what can be mended
	$(BIN)/ruff format $(APPS)
	$(BIN)/ruff check --fix $(APPS)

lock: setup ## write constraints.txt, and what an image takes of it, anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet --upgrade -o constraints.txt
	$(BIN)/uv pip compile pyproject.toml -c constraints.txt --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet -o deploy/requirements.txt

clean: ## remove what was set up, the demo's data included
	rm -rf .venv .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* staticfiles
