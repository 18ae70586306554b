# The one door: `make` lists what there is.
PYTHON ?= python3
VENV := .venv/bin/python
# PORT and HOST are short for AIRELAYS_PORT and AIRELAYS_HOST.
ifdef PORT
export AIRELAYS_PORT := $(PORT)
endif
ifdef HOST
export AIRELAYS_HOST := $(HOST)
endif

# The suite mostly waits: for servers, streams and time-outs. A file's tests stay together, since they share servers.
TEST_WORKERS ?= 4
PARALLEL := -n $(TEST_WORKERS) --dist loadscope --no-loadscope-reorder
SHARED = $(VENV) -m pytest -m "shared and not soak" $(PARALLEL)
REDIS_URL = $$($(VENV) -m tests.support.services redis)
# Which of the shared tests run on MariaDB: all, unless CI names those that ask the database in ways of their own.
MARIADB ?=
.DEFAULT_GOAL := help
PHONY_MORE := agents bench-scale matrix tour messages pages browser node corpus hunt fuzz soak uploads everything
.PHONY: $(PHONY_MORE) help run test test-all services services-stop check format bench faults failover lock dev clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## install what is needed, set up on the first run, serve (PORT, HOST, AIRELAYS_DATA_DIR)
	@$(PYTHON) portal/serving/bootstrap.py run
	@exec $(VENV) manage.py start

dev:
	@$(PYTHON) portal/serving/bootstrap.py dev

test: dev ## run the test suite (ARGS="-k name" for a part)
	@$(VENV) -m pytest $(PARALLEL) $(ARGS)

corpus: dev ## what real upstreams and clients were seen to do, a file each (ARGS="-k usage" for a part)
	@$(VENV) -m pytest tests/corpus $(ARGS)

matrix: dev ## every feature of each client API at every upstream, into docs/compatibility.md
	@$(VENV) -m tests.api.compatibility

services: dev ## PostgreSQL, MariaDB and Redis from Debian's packages, on loopback ports of their own
	@$(VENV) -m tests.support.services start

browser: dev ## chromium from Debian's packages, for the tests of pages
	@$(VENV) -m tests.support.services browser

node: ## the official SDKs for Node, for the tests that drive them (needs npm)
	@npm install --prefix tests/support/node --no-package-lock --no-audit --no-fund --loglevel=error

services-stop: dev ## end them and remove their data
	@$(VENV) -m tests.support.services stop

test-all: services ## the suites that concern them, on PostgreSQL with Redis, then on MariaDB without (REDIS=mariadb: the other way round)
	@trap '$(VENV) -m tests.support.services stop' EXIT; failed=0; \
	BOOKS_OPERATIONS=10000 TEST_DATABASE_URL=$$($(VENV) -m tests.support.services database) \
		TEST_REDIS_URL=$(if $(filter mariadb,$(REDIS)),,$(REDIS_URL)) $(SHARED) $(ARGS) || failed=1; \
	TEST_DATABASE_URL=$$($(VENV) -m tests.support.services mariadb) \
		TEST_REDIS_URL=$(if $(filter mariadb,$(REDIS)),$(REDIS_URL)) $(SHARED) $(MARIADB) $(ARGS) || failed=1; \
	exit $$failed

check: dev ## format, lint, types, import directions, migrations, deployment checks, docs
	$(VENV) -m ruff format --check .
	$(VENV) -m ruff check .
	$(VENV) -m mypy
	.venv/bin/lint-imports --no-cache
	$(VENV) -m portal.serving.selfcheck
	$(VENV) -m pytest -q tests/docs/test_docs.py

format: dev ## format the code
	$(VENV) -m ruff format .
	$(VENV) -m ruff check --fix .

bench: dev ## measure beside nginx, a bare relay, ferrogw, rolter, Portkey and LiteLLM (ARGS="--targets portal,bare --scale 0.2")
	@$(VENV) -m bench.speed.run $(ARGS)

bench-scale: dev ## one, two and four workers and two hosts on PostgreSQL and Redis (root; ARGS="--only kills,restart")
	@$(VENV) -m bench.scale.run $(ARGS)

faults: dev ## break upstreams, clients and the portal in every way that happens (ARGS="--targets portal,litellm --only stream")
	@$(VENV) -m bench.faults.run $(ARGS)

failover: dev ## what failing over costs: one channel dead, one flapping, one well (ARGS="--requests 5000")
	@$(VENV) -m bench.speed.failover $(ARGS)

agents: dev ## drive coding agents from npm on screens of tmux (ARGS="NODE_MODULES OUT --agents codex")
	@$(VENV) -m bench.agents.run $(ARGS)

uploads: dev ## two gigabytes of files, eight at once, the portal killed twice; then disk and records must agree
	@$(VENV) -m bench.faults.uploads $(ARGS)

tour: dev ## pictures of every page, light, dark and narrow, into docs/tour (ARGS="--check" looks for faults instead)
	@$(VENV) -m bench.pages.tour $(ARGS)

messages: dev ## collect the texts that are translated, and compile the translations (needs gettext)
	@$(VENV) -m bench.pages.messages

pages: dev ## how long every page takes with five million requests (ARGS="--requests 500000")
	@$(VENV) -m bench.pages.times $(ARGS)

fuzz: dev ## Schemathesis on the portal's own OpenAPI document (ARGS="--seconds 600")
	@$(VENV) -m bench.api.fuzz $(ARGS)

hunt: dev ## ten thousand random clients against an upstream that counts: what was paid is what it counted
	@HUNT_RUNS=$${HUNT_RUNS:-10000} $(VENV) -m pytest tests/gateway/charging/test_hunt.py --timeout 7200 -s $(ARGS)

soak: dev ## the long tests: twenty kills under load, a minute of fifty clients, 200,000 requests
	@$(VENV) -m pytest -m soak --timeout 3600 -s tests/soak $(ARGS)

everything: dev ## all kinds of requests, upstreams that fail, kills and restarts: every cent must agree (ARGS="--minutes 60")
	@$(VENV) -m bench.everything.run $(ARGS)

lock: ## compile the lock files again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements.in -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements-dev.in -o requirements-dev.txt

clean: ## remove the environment and what tools left
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/.peers
