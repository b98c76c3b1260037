# make demo | test | test-slow | test-lowest | lint | docs | links | dist | clean. Needs Python 3.10+ and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lowest lint docs links dist clean

help:
	@echo "make demo   segment photographs without and with PointRend, in less than a minute"
	@echo "make test   run the tests, in less than ten minutes on two cores"
	@echo "make test-slow   run the tests that take long"
	@echo "make test-lowest   run the tests with the lowest versions that pyproject.toml allows (Python 3.10 to 3.12)"
	@echo "make lint   ruff and mypy"
	@echo "make docs   the documentation site, in docs/_build/html"
	@echo "make links  try the links of the documentation to other sites"
	@echo "make dist   sdist and wheel in dist/, tried in a fresh environment"
	@echo "make clean  remove $(VENV) and caches"
	@echo "Options: PYTHON=python3.12 (the interpreter of a new $(VENV)), ARGS='...' (handed to the command)"

demo: $(VENV)/.installed
	$(BIN)/pointrend demo $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

# The lowest torch has no wheels for later versions of Python than 3.12.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(ARGS)

$(LOWEST)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "The lowest versions need Python 3.10 to 3.12: make PYTHON=python3.12 test-lowest"; exit 1; }
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python tools/lowest_versions.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	@touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -b html -q -W docs docs/_build/html

links: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/links

# What a user gets is tried without the checkout: the wheel in a new environment, the README's first steps in another folder.
dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --disable-pip-version-check --quiet dist/pointrend-*.whl
	mkdir dist/tried
	cp dist/venv/lib/python*/site-packages/pointrend/samples/riders.jpg dist/tried/photo.jpg
	cd dist/tried && PATH="$(CURDIR)/dist/venv/bin:$$PATH" && pointrend demo && pointrend predict photo.jpg --cutout \
	  && pointrend refine photo.jpg predictions/labels/photo.png \
	  && python -c 'import pointrend; print(pointrend.Predictor(pointrend.load("photo-semantic"))("photo.jpg"))'

# A stamp is written only when its step went through, so an interrupted step is done again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "PointRend needs Python 3.10 or newer; '$(PYTHON)' is `$(PYTHON) --version 2>&1 || true`."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Editable, so that a changed source file needs no new install; a changed pyproject.toml does.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing into $(VENV): PyTorch is large, the first time takes some minutes"
	$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo "Installing into $(VENV): PyTorch is large, the first time takes some minutes"
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(LOWEST) dist docs/_build .pytest_cache .ruff_cache .mypy_cache
