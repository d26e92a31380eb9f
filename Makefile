# make demo   repair a shipped excerpt (own environment, run-time dependencies only, no torch)
# make test   everything: environment, linter, types, tests
# make plugin the DAW plug-in (VST3 and LV2)
# make help   the rest
PYTHON ?= python3
PIP_FLAGS ?=
# For example TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu", which saves gigabytes on a machine without a GPU.
TORCH_FLAGS ?=
# What is trained, from which weights on, and for how long.
RECIPE ?= $(if $(shell command -v nvidia-smi),docs/train-gpu.toml,docs/train-cpu.toml)
TRAIN_FLAGS ?=
CORPUS_FLAGS ?=
BENCH_FLAGS ?=
ADAPTERS ?= musical-noise bleed phasiness dull-highs smeared-transients
# Two processes; tests/conftest.py says which tests go together. Empty for one.
PYTEST_FLAGS ?= -n 2 --dist loadgroup

VENV := .venv
DEMO_VENV := .venv-demo
READY := $(VENV)/.ready
DEMO_READY := $(DEMO_VENV)/.ready

.PHONY: help demo test lint programs plugin plugin-configured plugin-or-not hosts pytest peers bench train adapters venv clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo      repair a shipped excerpt: results in demo-out/"
	@echo "make test      linter, types and all tests"
	@echo "make lint      linter and types alone"
	@echo "make plugin    build the DAW plug-in, VST3 and LV2; stemprover plugin install puts it where hosts look"
	@echo "make bench     speed and memory, as ratios"
	@echo "make peers     quality and speed beside other methods (builds the training pool first)"
	@echo "make train     build the training material (STEMS=folder), train the base model on (TRAIN_FLAGS='--minutes 60')"
	@echo "make adapters  train the presets' adapters, each by its recipe.toml (ADAPTERS='bleed phasiness')"
	@echo "make clean     remove what builds and tests left;  make distclean: the environments too"

$(DEMO_READY): pyproject.toml constraints.txt
	test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	touch $@

# torch first and pinned, or pip may choose a build with several gigabytes of CUDA by itself.
$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) $(TORCH_FLAGS) -c constraints.txt torch
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[test]"
	touch $@

# The root is the package: type checkers see it through this link.
.types/stemprover:
	mkdir -p .types
	ln -sfn .. .types/stemprover

venv: $(READY)

demo: $(DEMO_READY)
	$(DEMO_VENV)/bin/stemprover demo -o demo-out

lint: $(READY) .types/stemprover
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# A fresh machine may be at its first updates: apt waits for those.
APT := apt-get -o DPkg::Lock::Timeout=600

# What tests use beside Python: a browser for the pages, and two OSC programs that are not ours for the bridge. Where apt
# may install them, that is done; else their tests are skipped.
programs:
	command -v chromium >/dev/null && command -v oscsend >/dev/null && command -v sclang >/dev/null \
		|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && $(APT) update -q \
		&& $(APT) install -q -y --no-install-recommends chromium liblo-tools supercollider-language; } \
		|| echo "no Chromium, liblo or SuperCollider: their tests are skipped"

# What the plug-in is built with, and the hosts that it is tested in. Where apt may install them, that is done.
PLUGIN := bridge/plugin
PLUGIN_PACKAGES := juce-modules-source cmake g++ pkg-config libasound2-dev lv2-dev
HOST_PACKAGES := ardour jalv jackd2 libjack-jackd2-dev sordi xvfb

plugin-configured:
	cmake -S $(PLUGIN) -B $(PLUGIN)/build -DCMAKE_BUILD_TYPE=Release >/dev/null 2>&1 \
		|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && $(APT) update -q \
		&& DEBIAN_FRONTEND=noninteractive $(APT) install -q -y --no-install-recommends $(PLUGIN_PACKAGES) \
		&& cmake -S $(PLUGIN) -B $(PLUGIN)/build -DCMAKE_BUILD_TYPE=Release; } \
		|| { echo "install JUCE 7, CMake and a C++ compiler first (Debian: apt install $(PLUGIN_PACKAGES))"; exit 1; }

plugin: plugin-configured
	rm -rf $(PLUGIN)/dist
	cmake --build $(PLUGIN)/build --parallel 2
	mkdir -p $(PLUGIN)/dist
	cp -r $(PLUGIN)/build/StemProver_artefacts/Release/VST3/StemProver.vst3 $(PLUGIN)/dist/
	cp -r $(PLUGIN)/build/StemProver_artefacts/Release/LV2/StemProver.lv2 $(PLUGIN)/dist/
	for bundle in vst3 lv2; do cp LICENSE $(PLUGIN)/NOTICE.md $(PLUGIN)/dist/StemProver.$$bundle/; done
	cp $(PLUGIN)/build/StemProverPicture_artefacts/Release/StemProverPicture $(PLUGIN)/dist/
	@echo "built in $(PLUGIN)/dist; stemprover plugin install puts it where hosts look"

# Where there is no JUCE to build it with, its tests are skipped; where there is, it has to build.
plugin-or-not:
	if $(MAKE) --no-print-directory plugin-configured; then $(MAKE) --no-print-directory plugin; \
		else rm -rf $(PLUGIN)/dist; echo "no plug-in: its tests are skipped"; fi

hosts:
	command -v ardour7-lua >/dev/null && command -v jalv >/dev/null && command -v jackd >/dev/null && command -v sord_validate >/dev/null && command -v Xvfb >/dev/null \
		&& test -e /usr/include/jack/jack.h \
		|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && $(APT) update -q \
		&& DEBIAN_FRONTEND=noninteractive $(APT) install -q -y --no-install-recommends $(HOST_PACKAGES); } \
		|| echo "no Ardour, jalv, jackd, sord_validate or Xvfb: their tests are skipped"

# Where apt may install the plug-in's tools and the hosts, their absence is a failure and not a skip (tests/hosts.py).
pytest: $(READY) programs plugin-or-not hosts
	OMP_NUM_THREADS=1 STEMPROVER_HOSTS=$$(command -v apt-get >/dev/null && test "$$(id -u)" = 0 && echo required) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS)

test: lint pytest

bench: $(READY)
	$(VENV)/bin/stemprover bench $(BENCH_FLAGS)

# STEMS names a folder of true stems, <song>/<stem>.wav; without it the pool is made of what Debian packages hold. Eight
# hours take 31 GB: CORPUS_FLAGS="--hours 4" makes fewer.
POOL := data/pool
$(POOL)/.ready: | $(READY)
	$(VENV)/bin/stemprover corpus build $(POOL) $(if $(STEMS),--stems $(STEMS)) $(CORPUS_FLAGS)
	touch $@

# StemProver beside other methods, on cases made of held-out material (make train builds the pool).
cases/.ready: $(POOL)/.ready
	$(VENV)/bin/python -m stemprover.engine.train.cases $(POOL) cases --separated 20 --simulated 6
	touch $@

peers: $(READY) cases/.ready
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[peers]"
	$(VENV)/bin/python -m stemprover.benchmarks.peers cases/test --cases 6

train: $(READY) $(POOL)/.ready
	$(VENV)/bin/stemprover train --config $(RECIPE) --pool $(POOL) $(TRAIN_FLAGS)

# The trained flag of a preset's preset.toml is for a person to set, when the figures say that it is better than the base.
adapters: $(READY) cases/.ready
	for name in $(ADAPTERS); do \
		$(VENV)/bin/stemprover train --config presets/$$name/recipe.toml --pool $(POOL) --run runs/$$name && \
		cp runs/$$name/$$name.safetensors presets/$$name/adapter.safetensors && \
		$(VENV)/bin/python -m stemprover.engine.train.fit_trust $(wildcard cases/valid cases/valid-other cases/four-stems) \
			--adapter presets/$$name/adapter.safetensors --recipe presets/$$name/recipe.toml --most 4 --most-own 6 || exit 1; \
	done

clean:
	rm -rf build dist *.egg-info .types .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out
	find . -name __pycache__ -not -path "./.venv*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(DEMO_VENV) $(PLUGIN)/build $(PLUGIN)/dist
