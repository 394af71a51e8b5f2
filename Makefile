# One command runs buttcloud, one command tests it. `make` alone says what there is.
# Settings are environment variables, and `make run SITE_PORT=9000` passes them too.

.DEFAULT_GOAL := help
.PHONY: help run demo test bench lint lock clean
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
python := .venv/bin/python

# Where it is set, each start would compile our modules again, which costs seconds.
unexport PYTHONDONTWRITEBYTECODE

help:  ## what you can do here
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' Makefile

run:  ## set up what is missing, then run the whole service (Ctrl-C stops it)
	@scripts/setup.sh run
	@exec $(python) manage.py up

demo:  ## be a customer of the running service: join, pay, invite a second peer; ARGS=--keep leaves the pub
	@scripts/setup.sh run
	@exec $(python) manage.py demo $(ARGS)

test:  ## all tests; ARGS="-k invite" goes to pytest
	@scripts/setup.sh test
	@exec $(if $(ARGS),$(python) -m pytest $(ARGS),scripts/test.sh)

bench:  ## all measurements, each against its target
	@scripts/setup.sh run
	@scripts/bench.sh

lint:  ## ruff, mypy, import rules, missing migrations, production settings
	@scripts/setup.sh python
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(python) -m mypy
	.venv/bin/lint-imports
	$(python) manage.py makemigrations --check --dry-run
	scripts/check_deploy.sh

lock:  ## resolve pyproject.toml anew into requirements.lock
	@scripts/lock.sh

clean:  ## remove what all this made; asks before anything precious (YES=1 answers yes)
	@scripts/clean.sh
