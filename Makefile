# Every target creates .venv on first use, and again when the dependencies change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# Torch's CPU threads and the ranks' processes would otherwise fight for the cores.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster lint bench soak docs clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMP) ## Pretrain a small tower on real photographs and videos, about two minutes
	$(BIN)/arlow data demo $(DEMO)/data
	$(BIN)/arlow train manifests/demo.yaml --ranks 2
	$(BIN)/arlow reconstruct $(DEMO)/runs/demo $(DEMO)/data/images/held-out/chelsea.png \
		--out $(DEMO)/reconstruction-image.png
	$(BIN)/arlow reconstruct $(DEMO)/runs/demo $(DEMO)/data/videos/held-out/carphone_pristine.mp4 \
		--out $(DEMO)/reconstruction-video.png
	$(BIN)/arlow curves $(DEMO)/runs/demo --out $(DEMO)/curves.png
	$(BIN)/arlow report $(DEMO)/runs/demo --out $(DEMO)/report.html

test: $(STAMP) ## Run the tests, in as many processes as there are cores
	$(TEST_ENV) env -u KUBECONFIG $(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-cluster: $(STAMP) ## Test the operator in the cluster that KUBECONFIG names, which it is installed into
	$(TEST_ENV) $(BIN)/python -m pytest -q tests/cluster $(ARGS)

lint: $(STAMP) ## Check style, types and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure tower, step, loader, checkpoints, telemetry and pictures
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP) ## Kill, stop and starve tiny runs 60 times; their weights must not differ
	$(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(STAMP) ## Write the pages, the dashboard and the CRD that are generated from the code
	$(BIN)/python -m arlow_trainer.config.reference docs/configuration.md
	$(BIN)/python -m arlow_trainer.telemetry.reference docs/metrics.md
	$(BIN)/python -m arlow_operator.crd manifests/operator/crd.yaml
	$(BIN)/python -m arlow_trainer.plan.reference docs/planning.md
	$(BIN)/python charts/src/run_dashboard.py

clean: ## Remove the environment and the demo
	rm -rf $(VENV) $(DEMO)

# DeepSpeed is released as source and needs torch to build, hence the order and no isolation.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"make: Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes a few minutes"
	@$(PIP) pip setuptools wheel
	@$(PIP) torch numpy ninja einops hjson msgpack packaging psutil py-cpuinfo "pydantic>=2" tqdm
	@$(PIP) --no-build-isolation deepspeed
	@$(PIP) -e ".[trainer,operator,demo,dev]"
	@touch $@
