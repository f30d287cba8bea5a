# One target per job. `make serve` and `make test` are all a newcomer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000

.PHONY: install serve test test-cluster check check-deps fuzz format lock image up down clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/anchorage: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(BIN)/anchorage
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,openvino,dev]'
	touch $@

install: $(VENV)/.dev ## Make .venv with everything: serving, training, development

serve: $(BIN)/anchorage ## Serve the bundled model on http://127.0.0.1:8000
	$(BIN)/anchorage serve --host $(HOST) --port $(PORT)

test: $(VENV)/.dev ## Run all tests that need no GPU
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-cluster: ## Run the tests of the cluster, with Ray, in a virtual environment of their own
	$(PYTHON) -m venv $(VENV)-cluster
	$(VENV)-cluster/bin/pip install --quiet --constraint constraints.txt \
	  --editable '.[cluster]' psutil pytest httpx numpy onnx hypothesis scikit-image
	$(VENV)-cluster/bin/python -m pytest -p no:cacheprovider tests/service/test_cluster.py

check: $(VENV)/.dev ## Lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

check-deps: $(VENV)/.dev ## Ask for known holes in the locked dependencies (needs network)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

fuzz: $(VENV)/.dev ## Send hostile images, hold the API to its document, fuzz the reading of photos
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.conformance --seconds 300
	$(BIN)/pip install --quiet atheris
	$(BIN)/python -m benchmarks.fuzz_photo --seconds 600

format: $(VENV)/.dev ## Rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(VENV)/.dev ## Write constraints.txt from what .venv holds
	$(BIN)/pip list --format=freeze --exclude anchorage --exclude pip --exclude setuptools \
	  | sed 's/+cpu//' > constraints.txt

image: ## Build the serving image
	docker build -t anchorage .

up: ## Start service and Redis; with the GPU where there is one
	@if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then \
	  docker compose -f docker-compose.yml -f docker-compose.gpu.yml up --build; \
	else docker compose up --build; fi

down: ## Stop them
	docker compose down

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build .pytest_cache .ruff_cache *.egg-info
