# Everything runs in .venv, which make sets up itself: it needs Python 3.11 or newer, a C++ compiler and the network.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The case(s) of the benchmark and further options: make bench CASE=mobileone_s0 BENCH="--rounds 3"
CASE ?=
BENCH ?=
DATA ?=
# How long to look for wrong laws and faults: make fuzz SECONDS=3600, make sweep SECONDS=3600, make zoo SECONDS=3600
SECONDS ?= 600
# How many rewritten graphs to compare: make hard GRAPHS=20000
GRAPHS ?= 5000
# How many damaged files to try: make faults FILES=100000
FILES ?= 10000

# The commit to compare choices with: make replay AGAINST=HEAD~1
AGAINST ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick lint types bench bench-suite bench-costs bench-search bench-extraction bench-paper bench-scale bench-plots bench-help bench-drawn bench-decoding bench-dynamic bench-sizes bench-start laws docs fuzz hard safety faults sweep zoo replay format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

demo: $(INSTALLED) ## Compile a real model four ways, check it, print a table (a few minutes)
	$(BIN)/python -m bench.speed.demo

test: lint types ## Lint, check types, run all tests, as many at once as there are cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

quick: $(INSTALLED) ## One case of each test of a layer that is not slow: a minute on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal --quick --ignore=tests/bench --ignore=tests/end_to_end

lint: $(INSTALLED) ## Check style, format, and that layers import only what stands below them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED) ## Check types
	$(BIN)/mypy
	$(BIN)/mypy --allow-subclassing-any --ignore-missing-imports bench

bench: $(INSTALLED) ## Time all cases (CASE="a b" for some), print the table, write bench/results/cases.json
	$(BIN)/python -m pytest bench/speed/test_cases.py -q -s --tb=short -W default \
		-o addopts="--strict-markers --import-mode=importlib" --benchmark-only \
		--benchmark-columns=min,median,stddev,rounds --benchmark-group-by=group \
		$(foreach case,$(CASE),--case $(case)) $(BENCH)

bench-suite: $(INSTALLED) ## Compile and time all models in all variants (hours; resumes), write bench/results/suite.json
	$(BIN)/python -m bench.speed.suite $(BENCH)
	$(BIN)/python -m bench.speed.suite_plot

laws: $(INSTALLED) ## Verify all laws, derive TASO's rules and hand rewrites, write bench/results/laws.json
	$(BIN)/python -m bench.laws.verify

bench-search: $(INSTALLED) ## CPU seconds, savings and e-nodes of searches; AGAINST=commit compares with that one
	$(BIN)/python -m bench.search.work $(if $(AGAINST),--against $(AGAINST)) $(BENCH)

bench-extraction: $(INSTALLED) ## Extract from the public e-graphs (DATA=folder of them), write bench/results/extraction.json
	$(BIN)/python -m bench.search.extraction $(if $(DATA),--data $(DATA)) $(BENCH)

bench-paper: $(INSTALLED) ## Search the paper's graphs by every strategy, write bench/results/paper.json (resumes)
	$(BIN)/python -m bench.search.paper $(BENCH)

bench-scale: $(INSTALLED) ## Plan graphs of 500 to 10,000 calls, write bench/results/scale.json
	$(BIN)/python -m bench.search.scale $(BENCH)

bench-costs: $(INSTALLED) ## Compare predicted times with measured ones, after make bench-suite; write bench/results/costs.json
	$(BIN)/python -m bench.prices.costs $(BENCH)

bench-plots: $(INSTALLED) ## Draw the results of bench-paper
	$(BIN)/python -m bench.search.plots $(BENCH)

bench-help: $(INSTALLED) ## Ask every program of bench/ for its help
	$(BIN)/python -m pytest -q tests/bench/test_entries.py

replay: $(INSTALLED) ## Write what the search chooses for 67 graphs; AGAINST=commit compares with that one
	$(BIN)/python -m bench.replay $(if $(AGAINST),--against $(AGAINST))

bench-drawn: $(INSTALLED) ## Time models drawn from blocks, original and rewritten, for SECONDS=600 (goes on with new ones)
	$(BIN)/python -m bench.prices.drawn --seconds $(SECONDS) $(BENCH)

bench-decoding: $(INSTALLED) ## Time steps of decoding with a static cache and live weights, original and rewritten
	$(BIN)/python -m bench.prices.decoding $(BENCH)

bench-dynamic: $(INSTALLED) ## Time models with a symbolic batch or length at six sizes, beside Inductor's
	$(BIN)/python -m bench.prices.dynamic $(BENCH)

bench-sizes: $(INSTALLED) ## Compare 200 drawn models at many sizes, with symbolic ones, with eager and Inductor
	$(BIN)/python -m bench.prices.sizes $(BENCH)

bench-start: $(INSTALLED) ## Time first calls in fresh processes, with empty caches and with full ones
	$(BIN)/python -m bench.speed.start $(BENCH)

docs: $(INSTALLED) ## Write docs/laws.md from the declarations of the laws
	$(BIN)/python -m bench.laws.document > docs/laws.md.new
	mv docs/laws.md.new docs/laws.md

fuzz: $(INSTALLED) ## Look for wrong laws on random terms for SECONDS=600
	$(BIN)/python -m bench.laws.fuzz --seconds $(SECONDS)

faults: $(INSTALLED) ## Try what may go wrong: lost workers, damaged plans (FILES=10000 of them), full disks
	$(BIN)/python -m bench.trust.faults --plans $(FILES)

hard: $(INSTALLED) ## Compare GRAPHS=5000 random programs on hard inputs, write bench/results/hard.json
	$(BIN)/python -m bench.trust.hard --graphs $(GRAPHS)

sweep: $(INSTALLED) ## Run torch's operators through the pass, against eager, for SECONDS=600 (resumes)
	$(BIN)/python -m bench.trust.sweep --seconds $(SECONDS) $(BENCH)

zoo: $(INSTALLED) ## Run models of timm and transformers through the pass, for SECONDS=600 (resumes)
	$(BIN)/python -m bench.trust.zoo --seconds $(SECONDS) $(BENCH)

safety: $(INSTALLED) ## Predict what the default assumptions cost each case (CASE="a b"), write bench/results/safety.json
	$(BIN)/python -m bench.trust.safety $(CASE)

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what tools left behind, but not .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml bench/constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --constraint bench/constraints.txt --editable '.[dev,bench]'
	@touch $@
