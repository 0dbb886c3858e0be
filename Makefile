# `make demo`, `make test` and `make lint` set up everything they need in .venv; a second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard csrc/*/*) CMakeLists.txt

.PHONY: docs wheel test-pages test-min-versions help setup demo test test-all setup-spiking setup-sinabs test-spiking graphs campaigns lint format clean sanitize misra fuzz
help:
	@echo "make demo   train the digits networks, print a table, save a picture"
	@echo "make test   run the test suite, in under five minutes"
	@echo "make test-all  the same with the long tests"
	@echo "make setup-spiking, setup-sinabs  add spiking simulators; make test-spiking compares them with the integers"
	@echo "make graphs compare every engine and export on 1,000 random graphs"
	@echo "make campaigns  10,000 damaged files for every reader, runs killed at 100 moments, 200 exports"
	@echo "make test-pages  reports in headless Chromium, checked with axe-core; needs node and Chromium"
	@echo "make docs   the docs site, in build/site"
	@echo "make lint   ruff, pyright and clang-format"
	@echo "make wheel  build a wheel, install it into a fresh environment, try it"
	@echo "make test-min-versions  try the oldest NumPy, onnx and ONNX Runtime that are allowed"
	@echo "make sanitize  the native engine's tests with AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make misra  MISRA C:2012 of the microcontroller's kernels and of an exported program, by cppcheck"
	@echo "make fuzz   feed the file loader with mutated files for FUZZ_SECONDS (60)"

setup: $(STAMP)

# The pinned requirements first, so that the build needs no isolated environment; then the package, editable.
$(STAMP): pyproject.toml requirements/dev.lock $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps --editable .
	@! $(BIN)/maqd --version | grep "not built" || { echo; \
		echo "*** maqd: WARNING: a part was not compiled: training and inference work, but far slower."; \
		echo "*** Install a C and a C++ compiler and the headers of Python (gcc g++ python3-dev), then: make clean setup"; \
		echo; } >&2
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/maqd demo

# Two processes; each takes tests from the other when it runs out of its own.
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal
test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	MAQD_LONG=1 $(PYTEST)

# Spiking simulators. Their own requirements would replace torch, so nothing but what the lock files name is installed.
SPIKING := $(VENV)/.spiking
SINABS := .venv-sinabs
setup-spiking: $(SPIKING)
$(SPIKING): $(STAMP) requirements/spiking.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/spiking.lock
	touch $@

# An environment that sees the packages of .venv behind its own.
setup-sinabs: $(SINABS)/.installed
$(SINABS)/.installed: $(STAMP) requirements/sinabs.lock
	$(PYTHON) -m venv $(SINABS)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(SINABS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/behind.pth
	$(SINABS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/sinabs.lock
	touch $@

# 1,000 images take MAQD_SPIKES=1000.
test-spiking: $(SPIKING) $(SINABS)/.installed
	MAQD_LONG=1 $(BIN)/python -m pytest -rs tests/spiking tests/export/test_nir.py tests/runtime/test_simulators.py

graphs: $(STAMP)
	MAQD_GRAPHS=1000 $(PYTEST) -k random_graphs

# Layout of the C and C++ files; .clang-format has the rules.
CLANG_FORMAT = $(BIN)/clang-format $(wildcard csrc/*/*.[ch] csrc/*/*.cpp tests/csrc/*.cpp)
# Seeds are fixed: what fails once fails again. A test has 100 moments: the limit for one of the suite is too short.
# Damaged files that are findings are kept in build/.
campaigns: $(STAMP)
	MAQD_LONG=1 MAQD_MUTATIONS=10000 MAQD_KILLS=100 MAQD_EXPORTS=200 $(PYTEST) --timeout 7200 tests/campaigns

# The docs site, in build/site; a warning is an error.
DOCS := build/docs-venv
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --site-dir build/site
	@echo "build/site/index.html"

$(DOCS)/.installed: requirements/docs.lock
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.lock
	touch $@

# Reports as a browser shows them. Pictures of them are left in build/pages: look at them.
PAGES := build/pages
test-pages: $(STAMP)
	mkdir -p $(PAGES)
	cp tests/report/pages/* $(PAGES)
	npm ci --prefix $(PAGES) --no-audit --no-fund --silent
	$(BIN)/maqd demo --epochs 4 --output $(PAGES)/demo
	$(BIN)/maqd report $(PAGES)/demo/w3a2.maqd -o $(PAGES)/file.html
	node $(PAGES)/check.mjs $(PAGES)/demo/w3a4.html $(PAGES)/demo/compared.html $(PAGES)/file.html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(CLANG_FORMAT) --dry-run -Werror

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(CLANG_FORMAT) -i

# The engine and its tests once more, with every access and every operation checked.
SANITIZED := build/sanitize
SANITIZERS = $(shell $(CC) -print-file-name=libasan.so):$(shell $(CC) -print-file-name=libubsan.so)
sanitize: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(SANITIZED) -G Ninja -DMAQD_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release \
		-DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python"
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build $(SANITIZED) --target compare_kernels _native
	$(SANITIZED)/compare_kernels 2000
	MAQD_GRAPHS=50 ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$(SANITIZERS)" MAQD_NATIVE_MODULE="$$(ls $(CURDIR)/$(SANITIZED)/_native*.so)" \
		$(BIN)/python -m pytest tests/runtime/test_native.py tests/runtime/test_engine.py tests/runtime/test_language_native.py

misra: $(STAMP)
	MAQD_LONG=1 $(BIN)/python -m pytest tests/csrc/test_misra.py

# Coverage-guided: inputs that reach new code are kept and changed further.
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python tests/graph/fuzz_container.py -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=build/

# A wheel as it would be released, installed where nothing else is, and tried.
FRESH := build/fresh
wheel: $(STAMP)
	rm -rf build/wheel $(FRESH)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --disable-pip-version-check build/wheel/*.whl
	cd build && fresh/bin/python ../tests/install/smoke.py

# The oldest versions that pyproject.toml allows, on what runs without PyTorch.
OLD := build/old
test-min-versions: $(STAMP)
	rm -rf $(OLD)
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/min.lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	$(OLD)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/wheel/*.whl
	cd build && old/bin/python ../tests/install/smoke.py --onnx
	$(OLD)/bin/python -m pytest tests/numerics tests/graph/test_graph.py tests/graph/test_interpreter.py

clean:
	rm -rf $(VENV) $(SINABS) build .pytest_cache .ruff_cache
