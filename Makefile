# make demo   guests on a real Xen with a virtio disk and NIC, on a machine without Xen
# make matrix every guest type, memory access, Xen and kernel; its table in docs/parity.md
# make test   everything: linters, unit tests compiled and interpreted, lab tests on the real Xen
# make lab-test ONLY="hotplug disk"      some of the lab tests, with what they print
# make soak MINUTES=20                   guests under load for long: nothing lost, said or leaked
# make module-check                      the guest module's static checks
SHELL := /bin/bash
RELEASE ?= trixie
ACCESS ?= grant
MINUTES ?= 20
ROUNDS ?= 20
ROOT ?= pv
TYPES ?= pv pvh hvm
PACKAGES ?= e2fsprogs gcc iproute2 libc6-dev mmdebstrap mount python3-dev python3-venv squashfs-tools zstd
VENV := .venv
RUN := $(VENV)/bin
SOURCES := pyproject.toml $(shell find src -name '*.py' -o -name '*.pxd')
UNIT := $(RUN)/python -m pytest -q -n 2
# of what Cython compiles
COMPILED := $(addprefix tests/unit/,test_mode.py memory queue device testing)

.PHONY: demo matrix test unit lint lab-test soak module-check setup clean

demo: setup
	$(RUN)/xenvirtio demo --release $(RELEASE) --memory-access $(ACCESS) $(TYPES:%=--type %)

matrix: setup
	$(RUN)/xenvirtio lab matrix --document docs/parity.md

test: lint unit lab-test

unit: setup
	$(UNIT) tests/unit
	$(UNIT) --interpreted $(COMPILED)

lab-test: setup
	$(RUN)/python -m pytest -v $(if $(ONLY),-rP,--durations 30) $(or $(ONLY:%=tests/lab/test_%.py),tests/lab) --lab-release $(RELEASE) --rounds $(ROUNDS) --root-type $(ROOT)

soak: setup
	$(RUN)/xenvirtio lab soak --release $(RELEASE) --minutes $(MINUTES)

module-check: setup
	$(RUN)/xenvirtio lab check-module --release $(RELEASE)

lint: setup
	$(RUN)/ruff check src tests
	$(RUN)/ruff format --check src tests
	$(RUN)/mypy

setup: $(VENV)/installed

$(VENV)/installed: $(SOURCES) Makefile scripts/packages
	@scripts/packages $(PACKAGES)
	@test -x $(RUN)/python || python3 -m venv $(VENV)
	@echo "installing xenvirtio into $(VENV)"
	@$(RUN)/pip install -q --disable-pip-version-check --upgrade pip setuptools
	@CFLAGS=-g0 $(RUN)/pip install -q --disable-pip-version-check -e . --group dev
	@touch $@

clean:
	@if [ -x $(RUN)/xenvirtio ]; then $(RUN)/xenvirtio lab destroy --all; \
	else echo "the lab's cache folder (~/.cache/xenvirtio) stays: make setup clean removes it too"; fi
	rm -rf build $(VENV) .hypothesis .mypy_cache .ruff_cache .pytest_cache src/*.egg-info
	find src -name '*.so' -delete
	find src -name '*.c' -delete
	find src tests -name __pycache__ -exec rm -rf {} +
