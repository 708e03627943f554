# Everything a fresh machine needs: python3 with venv, and this file.
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/scenes
INSTALLED := $(VENV)/.installed
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: label atlas test check-full bench lint clean
label: $(INSTALLED)
	$(BIN)/gazetteer label --out $(RUN) $(ARGS)
	$(BIN)/gazetteer atlas $(RUN)

test: $(INSTALLED)
	sh tests/install_system.sh
	$(BIN)/python tests/suite.py -m "not full" $(ARGS)

check-full: $(INSTALLED)
	sh tests/install_system.sh
	$(BIN)/python tests/suite.py $(ARGS)

bench: $(INSTALLED)
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file --json || exit 1; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): setup.cfg pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build runs
