# Everything a fresh machine needs: python3 with venv, and this file.
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/scenes
INSTALLED := $(VENV)/.installed
# What labelling, reading tables and the page to touch need, the original Grounding DINO and SAM packages among it; the rest
# is for tests, benchmarks and pages.
LABELLING := $(VENV)/.labelling
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: label test check-full bench train-world lint docs clean
label: $(LABELLING)
	$(BIN)/gazetteer label --out $(RUN) $(ARGS)
	$(BIN)/gazetteer atlas $(RUN)

test: $(INSTALLED)
	sh tests/install_system.sh
	$(BIN)/python tests/suite.py -m "not full" $(ARGS)

check-full: $(INSTALLED)
	sh tests/install_system.sh
	$(BIN)/python tests/suite.py $(ARGS)

# Trains the embedded models from scratch, for many hours; stopped, it goes on where it stood.
train-world: $(INSTALLED)
	nice -n 19 $(BIN)/python -m benchmarks.scenes.chain --build build/world $(ARGS)

bench: $(INSTALLED)
	for file in $(filter-out benchmarks/measure.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$file --json || exit 1; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The pages and the picture that follow from the code, then the site: build/site/index.html opens from disk; its search
# needs a server (python -m http.server).
docs: $(INSTALLED)
	$(BIN)/python docs/write_reference.py
	$(BIN)/python docs/draw_rooms.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(LABELLING): setup.cfg pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[original,analysis,explore]"
	touch $@

$(INSTALLED): setup.cfg pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $(LABELLING) $@

clean:
	rm -rf $(VENV) build runs
