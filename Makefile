# make demo   train the tiny embedded model on this machine's CPU, compare, report
# make test   run all tests
# make test-fast  run those that start no training, no engine, no cluster and no browser
# make docs   build/site from docs/, after writing anew what is generated in docs/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Images with Python often set it. The environment is not compiled when it is made, so that each of a run's processes
# would compile torch and all else it imports, for as long again as the import takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast check format docs lock

demo: $(VENV)/ready
	@$(BIN)/grpo-dist run configs/tiny-cpu.yaml --resume

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

test-fast: $(VENV)/ready
	$(BIN)/python -m pytest -m "not heavy" -n 3 --dist loadgroup --no-loadscope-reorder

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config setup.cfg

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The variable keeps Material for MkDocs from printing that MkDocs 2 will not be followed.
docs: $(VENV)/ready
	$(BIN)/python docs/pages
	$(BIN)/python docs/pictures/advise.py
	$(BIN)/python docs/pictures/architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

# Pins what stands in the lock already and adds what is new; delete requirements/cpu.txt first to take the newest.
lock:
	uv pip compile --universal --python-version 3.11 --extra cpu --extra dev --generate-hashes \
	  --excludes requirements/cpu-excludes.txt --override requirements/cpu-overrides.txt setup.cfg requirements/cpu.in \
	  --custom-compile-command "make lock" --annotation-style line -o requirements/cpu.txt

$(VENV)/ready: requirements/cpu.txt requirements/install.sh setup.cfg
	@requirements/install.sh $(VENV) $(PYTHON)
	@touch $@
