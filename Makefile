# Everything a fresh clone needs is Python 3.11 or later, and make.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
RECIPE ?= tiny
FAMILY ?= checkpoints/tiny
BIN := .venv/bin

.PHONY: demo test fuzz bench train check pictures clean chromium npm

demo: .venv/installed                ## open the page with the bundled family
	$(BIN)/python app.py --open --family $(FAMILY)

test: .venv/installed chromium npm   ## train a nano family and test everything with it
	$(BIN)/python -m pytest -q --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=30

fuzz: .venv/installed                ## send 10,000 hostile cases to page and command line, kill a run 30 times
	HOSTILE_CASES=10000 $(BIN)/python -m pytest -q tests/test_hostile.py
	RANDOM_KILLS=30 $(BIN)/python -m pytest -q tests/test_resume.py -k random_moments

bench: .venv/installed               ## measure everything, beside other ways, into BENCHMARKS.md
	$(BIN)/python -m tests.bench --family $(FAMILY)

train: .venv/installed               ## train a family: make train RECIPE=nano
	$(BIN)/python -m pipeline run --recipe $(RECIPE)

check: .venv/installed               ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile

pictures: .venv/installed chromium   ## the README's screenshots, taken from the real page
	$(BIN)/python -m ui.pictures --family $(FAMILY)

clean:                               ## what tools left behind; trained families stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -exec rm -rf {} +

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

chromium: WANTED := chromium
npm: WANTED := nodejs npm
chromium npm:
	@command -v $@ >/dev/null && exit; \
	command -v apt-get >/dev/null || { echo "the browser tests need a command '$@': install $(WANTED)"; exit 1; }; \
	sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	$$sudo apt-get update && $$sudo apt-get install --yes --no-install-recommends $(WANTED)
