# make demo   make the environment and run build-graph, train and explain on the sample
# make shipped-model DATA=folder   train the model that ships with mgsym on the public dataset
# make public-test-predictions DATA=folder POTENTIAL=file
#             train the best ensemble on the public dataset and predict its test structures
#             (REFINE=N: N searches an atom beside it; JOBS=N processes for them)
# make test   make the environment, check the code and run the tests (TEST_JOBS=N processes)
# make fuzz N=1000 SEED=1   damage every kind of file N times and look that each ends in one line
# make test-lowest   run the commands once with the lowest versions of all that mgsym needs
# make test-emulated-cuda   everything that has a --device, on an emulated GPU (needs g++)
# make test-cuda    on a machine with a GPU: the tests that need one
# make bench-cuda   on a machine with a GPU: its times, as a table in benchmark-gpu.md
# make docs   make the documentation's site, site/index.html; a broken link or reference fails
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# no byte code until a module is imported: few of all that torch brings are
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt
# Processes that tests run in, each with one thread (tests/conftest.py). Every one begins with a
# share of the tests in their order and takes from the others' when it is done, so that what tests
# of a file share is made once, and no long file is the last.
TEST_JOBS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal
# where `make demo` works; a fresh temporary folder unless given
DEMO ?=
# the environment of the lowest versions
LOWEST ?= .venv-lowest
N ?= 1000
SEED ?= 1
REFINE ?= 0
JOBS ?= 1

.PHONY: environment demo shipped-model public-test-predictions test tests test-slow fuzz test-lowest \
	test-emulated-cuda test-cuda bench-cuda docs check format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[dev]"
	touch $@

# all that tests, checks and documentation need
environment: $(READY)

demo: $(READY)
	@folder="$(DEMO)"; [ -n "$$folder" ] || folder=$$(mktemp -d); mkdir -p "$$folder"; \
	mgsym="$(abspath $(BIN))/mgsym"; cd "$$folder" && \
	echo "Working in $$folder" && \
	"$$mgsym" build-graph && "$$mgsym" train && "$$mgsym" explain --node 42 --topk 50 && \
	echo "Everything was written to $$folder"

shipped-model: $(READY)
	$(BIN)/python -m mgsym.data_tools.workflows.shipped_model $(DATA) data_tools/shipped_model

public-test-predictions: $(READY)
	$(BIN)/python -m mgsym.data_tools.workflows.public_predictions --data $(DATA) --potential $(POTENTIAL) \
		--refine $(REFINE) --jobs $(JOBS)

test: check tests

tests: $(READY)
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --mutations $(N) --seed $(SEED)

$(LOWEST)/.ready: pyproject.toml tests/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint tests/lowest.txt --editable .
	touch $@

test-lowest: $(LOWEST)/.ready
	@mgsym="$(abspath $(LOWEST))/bin/mgsym"; \
	sample=$$($(LOWEST)/bin/python -c \
		"from mgsym.data_tools.sample import sample_files; print(sample_files()[0])"); \
	cd $$(mktemp -d) && echo "Working in $$PWD" && \
	"$$mgsym" build-graph -q && "$$mgsym" train -q --epochs 2 && \
	"$$mgsym" explain -q --node 42 --method edge-mask --steps 5 && \
	"$$mgsym" relax -q "$$sample" -o relaxed.xyz && \
	"$$mgsym" label -q relaxed.xyz --atoms 0:1 --searches 1 -o labelled.xyz && \
	echo "The lowest versions work"

# the long list of commands, models and searches on the emulated CUDA device
test-emulated-cuda: $(READY)
	$(PYTEST) tests/emulated_cuda -m "slow or not slow"

# the same on a real GPU, with every other test that needs one
test-cuda: $(READY)
	MGSYM_GPU=real $(BIN)/python -m pytest -m cuda

bench-cuda: $(READY)
	$(BIN)/python tests/benchmarks/gpu.py --out benchmark-gpu.md
	@cat benchmark-gpu.md

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Open site/index.html"

# The type checker does not see that cli/ and data_tools/ install under mgsym, so it is shown a
# folder of links in which they do.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/typing/mgsym
	for part in mgsym/*; do ln -sfn "../../../$$part" "build/typing/$$part"; done
	ln -sfn ../../../cli build/typing/mgsym/cli
	ln -sfn ../../../data_tools build/typing/mgsym/data_tools
	cd build/typing && MYPYPATH=. $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p mgsym
	cd build/typing && MYPYPATH=. $(abspath $(BIN))/mypy --config-file ../../pyproject.toml \
		--scripts-are-modules ../../tests/benchmarks/*.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist site *.egg-info
