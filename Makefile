# Everything a person or CI does here. `make` alone lists the targets.
PYTHON ?= python3
CONFIG ?= config/quickstart.yaml
# of `make test` alone
SUITES ?= check e2e
CONSORT = .venv/bin/consort
OF = $(if $(AUDIO),--audio '$(AUDIO)') $(if $(OUTPUT),--output '$(OUTPUT)')
REPRODUCE = output/reproduce

help:      ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed   ## make .venv with the host side (the other targets do it by themselves)

extract: .venv/installed   ## run a job: make extract CONFIG=config/quickstart.yaml
	@$(CONSORT) extract '$(CONFIG)' $(OF)

plan: .venv/installed      ## show what a job would do, and start nothing
	@$(CONSORT) plan '$(CONFIG)' $(OF)

status: .venv/installed    ## show what a job has done so far
	@$(CONSORT) status '$(CONFIG)'

envs: .venv/installed      ## build all environments now instead of on first use
	@$(CONSORT) envs build

images: .venv/installed    ## build the container images, for the GPU where there is one; ATTEST=1: with attestations
	@$(CONSORT) envs build --runtime docker $(if $(ATTEST),--attest)

push: .venv/installed      ## push them: make push REGISTRY=host:port/name; digests go to images/digests.lock
	@$(CONSORT) envs push --registry '$(REGISTRY)'

pull: .venv/installed      ## pull the images that images/digests.lock names, instead of building them
	@$(CONSORT) envs pull

up: .venv/installed        ## the same in docker compose alone: make up CONFIG=... AUDIO=... OUTPUT=...
	@$(CONSORT) compose up '$(CONFIG)' $(OF)

down: .venv/installed      ## remove containers and volumes that `docker compose up` has left here
	@$(CONSORT) compose down

models: .venv/installed    ## list the models with their parameters, outputs and licences
	@$(CONSORT) models

doctor: .venv/installed    ## look whether everything is there, and say how to mend what is not
	@$(CONSORT) doctor

check: .venv/tools         ## lint, format, types, layers, unit and contract tests: about a minute
	@.venv/bin/python tests/suites.py quick --side-by-side 3

lint: .venv/tools
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/vermin -q --no-tips -t=3.7- images/worker images/legacy-py37

types: .venv/tools
	.venv/bin/mypy

layers: .venv/tools
	PYTHONPATH=images/torch-cuda .venv/bin/lint-imports

unit: .venv/tools          ## unit and contract tests alone, side by side
	@.venv/bin/python tests/suites.py unit

test: .venv/tools          ## check, then the worker on a real Python 3.7, parity and whole jobs: see tests/suites.py
	@.venv/bin/python tests/suites.py $(SUITES)

test-docker: .venv/tools   ## containers, compose and GPU plumbing on this machine's Docker engine
	@.venv/bin/python tests/suites.py docker

reproduce: .venv/installed ## run all models in containers, in docker compose and in virtual environments, and compare: ... AUDIO=...
	@.venv/bin/python tests/checkpoints/reproduce.py config/reproduce.yaml '$(REPRODUCE)' $(if $(AUDIO),'$(AUDIO)')
	@$(CONSORT) extract '$(REPRODUCE)/job.yaml' --runtime docker --output '$(REPRODUCE)/docker'
	@$(CONSORT) compose up '$(REPRODUCE)/job.yaml' --output '$(REPRODUCE)/compose'
	@$(CONSORT) extract '$(REPRODUCE)/job.yaml' --runtime venv --output '$(REPRODUCE)/venv'
	@$(CONSORT) verify '$(REPRODUCE)/docker' '$(REPRODUCE)/compose'
	@$(CONSORT) verify '$(REPRODUCE)/compose' '$(REPRODUCE)/venv'
	@$(CONSORT) verify '$(REPRODUCE)/venv' '$(REPRODUCE)/docker'

lock:                      ## renew the hash-pinned locks from their requirements.in
	sh images/lock.sh

clean:                     ## forget .venv and caches of the tools; keep outputs and built environments
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# The stamps are files so that a changed lock installs again, and an unchanged one costs nothing.
.venv/installed: orchestrator/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Consort needs Python 3.10 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r orchestrator/requirements.lock
	.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/tools: .venv/installed tests/requirements.lock
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r tests/requirements.lock
	@touch $@

.PHONY: help install extract plan status envs images push pull up down models doctor check lint types layers unit test test-docker reproduce lock clean
