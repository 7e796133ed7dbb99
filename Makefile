# Every target sets up what it needs; only `install` talks to the network.
.DEFAULT_GOAL := help
.PHONY: help install demo check test docs bench gpu-check

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := outputs/demo
# what is built from source is built with the tested versions too (visdom needs a setuptools below 81): pip
# takes PIP_CONSTRAINT there until 25.2 and PIP_BUILD_CONSTRAINT from 25.3 on
TESTED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## .venv with everything in its tested version

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genbench needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=python3.12 ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(TESTED) $(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -e '.[dev,tensorboard,visdom]'
	@touch $@

demo: $(STAMP)  ## VAE, GAN and VAE-GAN on the embedded digits, their floors, and the table
	rm -rf $(DEMO)
	GENBENCH_OUTPUTS=$(DEMO) $(BIN)/genbench train -m model=noise,vae,gan,vae-gan study=demo
	GENBENCH_OUTPUTS=$(DEMO) $(BIN)/genbench train -m model=vae,gan,vae-gan budget.images=0 study=demo
	GENBENCH_OUTPUTS=$(DEMO) $(BIN)/genbench compare study=demo --format md --out $(DEMO)/table.md
	GENBENCH_OUTPUTS=$(DEMO) $(BIN)/genbench compare study=demo --pictures $(DEMO)/samples.png
	@echo "the same as Markdown: $(DEMO)/table.md; samples side by side: $(DEMO)/samples.png"

check: $(STAMP)  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(STAMP)  ## the test suite; make test ARGS='-m "not slow"' for the quick part
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

docs: $(STAMP)  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

bench: $(STAMP)  ## how fast training and scoring are on this machine
	$(BIN)/python -m benchmarks $(ARGS)

gpu-check: $(STAMP)  ## what runs differently on a GPU, tried once on this machine's
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)
