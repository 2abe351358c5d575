SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON := $(BIN)/python
# Arguments for the program behind a target: make demo ARGS=--keep
ARGS ?=
# Test processes at once. Those on a control plane mostly wait for it: each process starts its own.
WORKERS ?= 2
E2E_WORKERS ?= 3
# What takes long, or needs programs of other projects: part of the automation's run, not of every `make test`.
LONG := e2e/survival e2e/runtime e2e/test_placement.py e2e/test_scheduler_tables.py \
	e2e/test_scheduler_profiles.py e2e/test_preemption.py e2e/test_new_nodes.py \
	e2e/test_volumes.py e2e/test_volume_filters.py e2e/test_kruise.py e2e/test_argo_rollouts.py \
	e2e/test_rollback_kinds.py e2e/test_flagger.py e2e/test_flux.py e2e/test_plain_canary.py \
	e2e/test_imagecache_lifecycle.py e2e/test_imagecache_timeouts.py e2e/test_imagecache_refreshes.py \
	e2e/test_imagecache_purge.py e2e/test_purge_rights.py e2e/test_use_cases.py e2e/test_walkthrough.py \
	e2e/test_bad_input.py e2e/test_jobs.py e2e/test_fewer_rights.py e2e/test_policy_hold.py \
	e2e/test_ready_pods_first.py e2e/test_rollback.py e2e/test_rollouts.py e2e/test_deployment_rollouts.py \
	e2e/test_steer.py e2e/test_drawing.py e2e/test_dashboard.py e2e/test_imagecache_nodes.py e2e/test_imagecache_failures.py \
	e2e/test_imagecache_many_failures.py e2e/test_gate_conditions.py e2e/test_gate_verbs.py e2e/test_gate_end.py \
	e2e/test_gate_rollback.py e2e/test_gate_wedged.py e2e/test_server_errors.py e2e/test_dead_nodes.py \
	e2e/test_mesh.py e2e/test_imagecache_traps.py

.PHONY: help
help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.locked: pyproject.toml uv.lock .ci/setup
	@.ci/setup

.PHONY: setup
setup: .venv/.locked ## Make the virtual environment with the locked dependencies

.PHONY: demo
demo: setup ## Roll a Deployment out cold, then prewarmed, on a real control plane (ARGS=--keep keeps it)
	@$(PYTHON) -m e2e.demo $(ARGS)

.PHONY: test
test: lint unit e2e ## Lint, types, layers, generated files, and all tests but the longer half on a control plane

.PHONY: lint
lint: setup ## Style, types, layers, generated files
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== import-linter"
	@$(BIN)/lint-imports
	@echo "== generated files"
	@$(PYTHON) -m prewarm.api.generate --check
	@$(PYTHON) -m prewarm.cli.reference --check
	@$(PYTHON) -m prewarm.runtime.generate --check

.PHONY: generate
generate: setup ## Write the CRDs and reference pages that come from the code
	@$(PYTHON) -m prewarm.api.generate
	@$(PYTHON) -m prewarm.cli.reference
	@$(PYTHON) -m prewarm.runtime.generate

.PHONY: unit
unit: setup ## Tests that need no cluster (ARGS="-k name")
	@echo "== tests"
	@$(BIN)/pytest tests --numprocesses=$(WORKERS) --dist=loadfile $(ARGS)

.PHONY: e2e
e2e: setup ## Tests on a real control plane (skipped, with the reason, where none can run)
	@echo "== programs"
	@$(PYTHON) -m e2e.cluster.binaries all || echo "tests that need them are skipped, or fail with PREWARM_TEST_REQUIRE_CLUSTER"
	@echo "== tests on a control plane"
	@$(BIN)/pytest e2e --numprocesses=$(E2E_WORKERS) --dist=loadfile $(LONG:%=--ignore=%) $(ARGS)

.PHONY: long
long: setup ## The longer half of the tests on a real control plane, other projects' controllers among them
	@echo "== longer tests on a control plane"
	@$(BIN)/pytest $(LONG) --numprocesses=$(E2E_WORKERS) --dist=loadfile $(ARGS)

.PHONY: survive
survive: setup ## Kill, stall and confuse the controller on a real control plane, over many seeds (ARGS="KILL --seeds 5")
	@$(PYTHON) -m e2e.survival $(ARGS)

.PHONY: bench
bench: setup ## Benchmarks, each beside its baseline
	@$(PYTHON) -m e2e.bench $(ARGS)

.PHONY: bench-placement
bench-placement: setup ## Predicted nodes beside the real kube-scheduler's (ARGS="--seed 2 --cases 40", --large)
	@$(PYTHON) -m e2e.bench.placement $(ARGS)

.PHONY: image-check
image-check: setup ## Play the steps of the Dockerfile without a container engine, and run what comes of it
	@$(PYTHON) -m e2e.image

.PHONY: tools
tools: setup ## Build all programs that the lanes use into the user's cache folder
	@$(PYTHON) -m e2e.cluster.binaries all
