# Everything here sets up what it needs from nothing but python3 (3.11 or newer) and make. `make` alone tells what there is.

PYTHON ?= python3
UV_VERSION := 0.13.9

VENV := .venv/.synced
UV := .tools/bin/uv
RUN := .venv/bin
PEERS := .tools/bench/.synced

export UV_PYTHON := $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1

.DEFAULT_GOAL := help
.PHONY: help run test test-containers soak chaos faults check bench clean

help: ## Tell what there is
	@echo "Tollbook: sell APIs by the call."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 26
	@echo
	@echo "Settings of 'make run' (environment): TOLLBOOK_HOME, TOLLBOOK_PROXY_PORT, ... see deploy/README.md"

run: $(VENV) ## Run everything on this machine until Ctrl-C, and print a call to try
	@exec $(RUN)/python -m deploy

test: $(VENV) ## Run all tests, against real servers
	$(RUN)/pytest --ignore=tests/faults -n 2 --dist loadfile

test-containers: $(VENV) ## Run the integration tests on NATS and PostgreSQL in containers (needs Docker)
	$(RUN)/python -m tests.containers.images
	TOLLBOOK_TEST_SERVERS=containers TESTCONTAINERS_RYUK_DISABLED=true $(RUN)/pytest $(or $(TESTS),tests/integration)

# The tests that get better the longer they run; each in its long form, for so many minutes (SOAK_MINUTES, 10).
soak: $(VENV) ## Simulate with new seeds for SOAK_MINUTES (10), then hammer real gates at their limits for three minutes
	$(RUN)/python -m tests.simulation soak
	$(RUN)/python -m tests.exactness

chaos: $(VENV) ## Kill and stop everything in random order under load, then check that all of it held
	$(RUN)/python -m tests.chaos

# Not in `make test`: they mount small disks, which a container without privileges may not, and sit real elections out.
faults: $(VENV) ## Full disks, and a NATS cluster whose nodes die or are cut off (needs root or user namespaces)
	$(RUN)/pytest tests/faults

check: $(VENV) ## Check format, style, types and import rules
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(VENV) $(PEERS) ## Measure speed and memory beside what users would pick instead (BENCH=name: one of them)
	$(RUN)/python -m tests.bench $(BENCH)

clean: ## Remove what was set up and cached; the data in .tollbook stays
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per step: done once, again only when what it depends on changes.
$(UV): Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Tollbook needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@rm -rf .tools
	@echo "setting up uv $(UV_VERSION)"
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $(UV)

$(VENV): $(UV) pyproject.toml uv.lock
	@echo "setting up the virtual environment from uv.lock"
	@$(UV) sync --quiet --frozen
	@touch $(VENV)

# What `make bench` compares with, in an environment of its own.
$(PEERS): $(UV) tests/bench/peers.txt
	@echo "setting up the environment of the benchmarks' peers"
	@$(UV) venv --quiet --clear .tools/bench
	@$(UV) pip sync --quiet --python .tools/bench/bin/python tests/bench/peers.txt
	@touch $(PEERS)
