# Every command a contributor needs. Two are enough to start: `make demo` and `make test`.
# Each builds .venv first, from hashed pins, and again when the pins change or another interpreter is named.

FITS := import sys; sys.version_info >= (3, 11) or sys.exit(1)
WHICH := import sys; print(sys.base_prefix, sys.version)
# The system's interpreter first, where it is new enough and can make a venv: distributions build theirs with
# profile-guided optimisation, as the image's is. What a version manager compiled often is not, and a tenth slower.
PYTHON ?= $(shell /usr/bin/python3 -c '$(FITS); import ensurepip' 2>/dev/null && echo /usr/bin/python3 || echo python3)
ARGS ?=
# Where `make protos` writes; the test that compares the committed code points it elsewhere.
PROTOS_OUT ?= clients

# Tests start servers by the hundred. Where the environment forbids it to keep what is compiled, each would
# compile itself anew.
unexport PYTHONDONTWRITEBYTECODE

# A third of the time a test waits: for a process to start, a clock to move, a disk. A worker that has run its own
# tests takes over some of another's.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/stamp

# A .venv of another interpreter than the one that is named is built anew; where none is named, it stays.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(BIN)/python -c '$(WHICH)' 2>/dev/null),$(shell $(PYTHON) -c '$(WHICH)' 2>/dev/null))
.PHONY: $(STAMP)
endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo dev test lint format protos requirements bench torture e2e clean

help: ## this list
	@sed -n 's/^\([a-z][a-z0-9]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "make %-13s %s\n", $$1, $$2 }'

demo: $(STAMP) ## tell the whole story once: sign-up, a picture, the charge, the audit
	@$(BIN)/python demo.py

dev: $(STAMP) ## keep a server with its sandbox running and print how to talk to it
	@$(BIN)/oanim-server dev

test: lint ## lint, then every test, on SQLite and on PostgreSQL (ARGS: more for pytest; WORKERS: how many at once)
	@echo "pytest"
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## ruff, mypy --strict, import-linter, buf
	@echo "ruff"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@echo "mypy"
	@$(BIN)/mypy --no-error-summary --num-workers auto
	@echo "import-linter"
	@$(BIN)/lint-imports > $(VENV)/lint-imports.log 2>&1 || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "buf"
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@if [ -f tests/released.binpb ]; then $(BIN)/buf breaking --against tests/released.binpb; fi

format: $(STAMP) ## rewrite Python and protos in the house format
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet
	@$(BIN)/buf format --write

protos: export PATH := $(CURDIR)/$(BIN):$(PATH)
protos: $(STAMP) ## write clients/openanimate anew from protos/
	@set -e; out=$$(mktemp -d $(VENV)/protos.XXXXXX); trap 'rm -rf "$$out"' EXIT; \
	mkdir -p "$$out/openanimate" "$(PROTOS_OUT)"; touch "$$out/openanimate/py.typed"; \
	python -m grpc_tools.protoc -I protos --python_out="$$out" --mypy_out=quiet:"$$out" \
		$$(find protos -name '*.proto' | LC_ALL=C sort); \
	python -m grpc_tools.protoc -I protos --grpc_python_out="$$out" --mypy_grpc_out=quiet:"$$out" \
		$$(find protos -name '*_service.proto' | LC_ALL=C sort); \
	rm -rf "$(PROTOS_OUT)/openanimate"; mv "$$out/openanimate" "$(PROTOS_OUT)/"

requirements: $(STAMP) ## pin anew what pyproject.toml asks for (UPGRADE=1: newest versions)
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras $(if $(UPGRADE),--upgrade) \
		--custom-compile-command 'make requirements' --output-file requirements.txt pyproject.toml

bench: $(STAMP) ## measure every figure of docs/performance.md (QUICK=1: in a minute and a half; CHECK=1: fail on a miss)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--plan quick) $(if $(CHECK),--check) $(ARGS)

torture: $(STAMP) ## the long tests: kill -9, races, faults
	@$(BIN)/pytest -m torture --timeout 1800 $(ARGS)

e2e: $(STAMP) ## only the tests that drive the product from outside
	@$(BIN)/pytest -m e2e $(ARGS)

clean: ## remove what these commands made
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache bg.png film.mp4
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs the pins in seconds where pip takes a minute or more; it is one of them, and pip brings it. Where
# packages come from may have been said to pip alone (pip.conf, PIP_*): then pip installs the others, too.
# The build backend is among the pins, so that the editable install fetches nothing. A venv of another interpreter
# goes first: made anew in place, it would have the one's binary and the other's library.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
OURS := --no-deps --no-build-isolation -e .
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || { \
		echo "oanim needs Python 3.11 or newer as $(PYTHON); name another one with: make PYTHON=/path/to/python" >&2; \
		exit 1; }
	@[ "$$($(BIN)/python -c '$(WHICH)' 2>/dev/null)" = "$$($(PYTHON) -c '$(WHICH)')" ] || rm -rf $(VENV)
	@echo "building $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@sed -n '/^uv==/,/[^\]$$/p' requirements.txt > $(VENV)/uv.txt
	@$(PIP) --require-hashes -r $(VENV)/uv.txt
	@$(UV) --require-hashes -r requirements.txt && $(UV) $(OURS) \
		|| { echo "uv could not; pip does it, which takes longer" >&2; \
			$(PIP) --require-hashes -r requirements.txt && $(PIP) $(OURS); }
	@touch $@
