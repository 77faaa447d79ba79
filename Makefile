# The verbs of the house. CI runs these and nothing else; `make` alone lists them.
#
# Needs cargo, CPython 3.11+ with pip, gcc and make. Everything made lands in .venv, dist, site and target.
# Two stamp files in .venv say what is up to date: the tools (`tools`), and shoal itself (`shoal`), which is built as a
# wheel and installed, so that tests and demo run what a user gets and never the source tree.

PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || echo python3)
ARGS ?=
SECONDS ?= 120
SEED ?=
LIFE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# Directories are listed too: a file that was deleted changes the time of its directory.
SOURCES := $(shell find crates python -not -name '*.pyc' -not -name __pycache__) \
    Cargo.toml Cargo.lock README.md LICENSE-MIT LICENSE-APACHE

# Strict (mkdocs.yml): a dead link, a page that the navigation lacks, a docstring that can't be read end it.
# The theme warns of a future version of mkdocs that it does not admit anyway.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# An extension module takes Python's symbols from the interpreter that loads it. This tells PyO3 not to look for a
# libpython, in every cargo command alike, so that none of them makes the next one compile PyO3 again.
export PYO3_BUILD_EXTENSION_MODULE := 1
# Tools of the virtual environment, for programs that tests start by name.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test test-slow torture test-wheel check docs bench bench-faults wheel clean
.DELETE_ON_ERROR:

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/shoal ## build and install shoal, run its demonstration (ARGS="--quick" for a short one)
	$(BIN)/shoal demo $(ARGS)

test: $(VENV)/shoal ## all tests but the slow ones: Rust, loom models, Python (ARGS="tests/pool -k map" goes to pytest)
# The threshold crate is a module for an interpreter to load: it has no main and is tested from Python.
# Tests of what a death leaves need points to die at.
	cargo test --workspace --exclude shoal-python --features shoal-core/crash-points
# Loom tries every interleaving, so the models want an optimised build; they don't want to wait for link-time optimisation.
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 RUSTFLAGS="$(RUSTFLAGS) --cfg loom" \
	    cargo test -p shoal-core --release --lib --target-dir target/loom loom
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(VENV)/shoal ## the slow tests: faults by the thousand
	$(BIN)/python -m pytest -m slow $(ARGS)

torture: $(VENV)/shoal ## everything at once, with kills, for SECONDS=120 (SEED=… or LIFE=… plans the same again)
	$(BIN)/python -m torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(LIFE),--life $(LIFE))

wheel: $(VENV)/shoal ## the wheel for every CPython from 3.11 on, and the source distribution, in dist
	rm -f dist/shoal-*.tar.gz
	$(BIN)/maturin sdist --out dist
	@ls dist/shoal-*-cp311-abi3-manylinux_*.whl || { echo "the wheel is not cp311-abi3-manylinux: $$(ls dist)"; exit 1; }

test-wheel: wheel ## the wheel in a clean environment of every CPython found, the source distribution built, the crates packed
	$(BIN)/python .ci/test_wheel.py
# Their files are those of the source distribution, which was built just now.
	cargo package --quiet --locked --allow-dirty --no-verify -p shoal-sys -p shoal-core

check: $(VENV)/shoal ## format, lints, types, documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked -p shoal-core --all-targets --features crash-points -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest shoal._engine
	$(SITE)

docs: $(VENV)/shoal ## the documentation site, in site: open site/index.html
	$(SITE)

bench: $(VENV)/shoal $(VENV)/bench ## the measured figures beside those of other tools (ARGS="--quick")
	$(BIN)/python -m benchmarks $(ARGS)
	cargo bench --locked -p shoal-core --bench arena

bench-faults: $(VENV)/shoal $(VENV)/bench ## what tools do when something goes wrong (ARGS="--write" puts the table into docs/reliability.md)
	$(BIN)/python -m benchmarks.fault_table $(ARGS)

clean: ## remove everything that was made
	rm -rf $(VENV) dist site target .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/tools: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group dev
	touch $@

$(VENV)/bench: pyproject.toml | $(VENV)/tools
	$(PIP) install --group bench
	touch $@

$(VENV)/shoal: $(VENV)/tools $(SOURCES)
	rm -f dist/shoal-*.whl
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out dist
# pip leaves an installed version alone when the number is the same: take the old build away first.
	$(PIP) uninstall --yes shoal
	$(PIP) install "$$(echo dist/shoal-*.whl)[demo]"
	touch $@
