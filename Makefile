# make run    an edge and registrar on 127.0.0.1:5060, set up from nothing
# make test   everything that the tests need, then the tests
# make compiled, make test-compiled   the compiled build (optional), and the tests on it
# The virtual environment is made by tools/setup, which also takes a half-made one and repairs it.

VENV = .venv
BIN = $(VENV)/bin
# the first interpreter on PATH that is new enough; or: make run PYTHON=/usr/bin/python3.12
PYTHON = $(shell tools/setup python)
PACKAGES = sipedge outbound_plugin path_plugin rr_plugin registrar_plugin
EXAMPLES = $(wildcard examples/*.py)
FUZZ_SECONDS = 60
COMPILED = .venv-compiled
# what runs there imports what is installed there, never the sources of this directory
ON_COMPILED = SIPEDGE_COMPILED=1 PYTHONSAFEPATH=1 $(COMPILED)/bin/python

.PHONY: run test test-all test-compiled check fmt cov fuzz fuzz-compiled bench clean compiled
.PHONY: setup setup-dev peers

run: setup
	@[ -e examples/flow_token.key ] || (umask 077; $(BIN)/sipedge keygen > examples/flow_token.key)
	@echo "listening:     127.0.0.1:5060, UDP and TCP (configuration: examples/edge_and_registrar.py)"
	@echo "register:      a phone as user alice, domain and proxy 127.0.0.1, any password; another as bob"
	@echo "see it work:   call sip:bob@127.0.0.1 from alice; or, in another terminal: $(BIN)/sipedge demo"
	@$(BIN)/sipedge run examples/edge_and_registrar.py

# the compiled build is compared with the pure one; without a C compiler that test says so
test: setup-dev peers
	-@tools/setup compiled $(COMPILED) "$$(tools/setup optimised)"
	$(BIN)/python -m pytest -q

compiled:
	@tools/setup compiled $(COMPILED) "$$(tools/setup optimised)"

test-compiled: compiled
	$(ON_COMPILED) -m pytest -q --import-mode=append \
	    --ignore=tests/interop --ignore=tests/scenarios

# the tests without peers on every other interpreter that can be found
test-all: test test-compiled
	@tools/setup others | while read -r version python; do \
	    tools/setup venv .venv-$$version $$python dev </dev/null && \
	    echo "== Python $$version" && .venv-$$version/bin/python -m pytest -q \
	        --ignore=tests/interop --ignore=tests/scenarios </dev/null || exit 1; \
	done

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy $(EXAMPLES)
	$(MAKE) test

fmt: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

cov: setup-dev
	$(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage report

fuzz: setup-dev
	$(BIN)/pip install -q -e '.[fuzz]'
	@for harness in $(wildcard fuzz/fuzz_*.py); do \
	    echo "== $$harness, $(FUZZ_SECONDS) s"; \
	    $(BIN)/python $$harness -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# the same on the compiled build, with checks of every access to memory in what is written in C
fuzz-compiled:
	@tools/setup compiled .venv-checked "$$(tools/setup optimised)" \
	    "-fsanitize=address,undefined -fno-sanitize-recover=all -g"
	@for harness in $(wildcard fuzz/fuzz_*.py); do \
	    echo "== $$harness, $(FUZZ_SECONDS) s"; \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0 \
	        PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONPATH=fuzz \
	        .venv-checked/bin/python $$harness -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# on an interpreter that was built with profile-guided optimisation, if there is one; see
# benchmarks/README.md
bench: peers
	-@tools/setup compiled $(COMPILED) "$$(tools/setup optimised)"
	@tools/setup venv .venv-bench "$$(tools/setup optimised)"
	.venv-bench/bin/python -m benchmarks $(BENCH)

setup:
	@tools/setup venv $(VENV) "$(PYTHON)"

setup-dev:
	@tools/setup venv $(VENV) "$(PYTHON)" dev

peers:
	@tools/setup peers

clean:
	rm -rf .venv .venv-bench .venv-compiled .venv-checked .venv-3.* build dist *.egg-info .coverage htmlcov .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache
	find $(PACKAGES) tests tools benchmarks fuzz examples -name __pycache__ -prune -exec rm -rf {} +
