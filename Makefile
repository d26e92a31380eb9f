# make demo    repair a bundled excerpt (in an environment with the run-time dependencies only, without torch)
# make test    install everything, then run the linter, the type checker and all tests
# make plugin  build the DAW plug-in (VST3 and LV2)
# make help    list all targets
PYTHON ?= python3
PIP_FLAGS ?=
# On a machine without a GPU, TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu" saves gigabytes.
TORCH_FLAGS ?=
# The settings of `make train`: docs/train-gpu.toml if there is an NVIDIA GPU, else docs/train-cpu.toml.
RECIPE ?= $(if $(shell command -v nvidia-smi),docs/train-gpu.toml,docs/train-cpu.toml)
TRAIN_FLAGS ?=
CORPUS_FLAGS ?=
SONGS ?= $(STEMS)
BENCH_FLAGS ?=
ADAPTERS ?= musical-noise bleed phasiness dull-highs smeared-transients
# Tests run in two processes; tests/conftest.py groups them. Empty: one process.
PYTEST_FLAGS ?= -n 2 --dist loadgroup

VENV := .venv
DEMO_VENV := .venv-demo
READY := $(VENV)/.ready
DEMO_READY := $(DEMO_VENV)/.ready

.PHONY: help demo test lint programs plugin plugin-configured plugin-or-not hosts pytest peers bench results train adapters venv clean distclean
.DEFAULT_GOAL := help

help:
	@echo "make demo       repair a bundled excerpt; the files are in demo-out/"
	@echo "make test       install everything, then run the linter, the type checker and all tests"
	@echo "make lint       run the linter and the type checker only"
	@echo "make plugin     build the DAW plug-in (VST3, LV2); install it with: stemprover plugin install"
	@echo "make bench      measure speed and memory on this machine (BENCH_FLAGS=--quick: a minute or two)"
	@echo "make peers      compare quality and speed with other methods (builds the training pool first)"
	@echo "make results    measure everything that docs/results.md shows, and write it (hours; SONGS=folder of true stems)"
	@echo "make train      build the training pool (STEMS=folder) and continue training the base (TRAIN_FLAGS='--minutes 60')"
	@echo "make adapters   train the presets' adapters, each with its recipe.toml (ADAPTERS='bleed phasiness')"
	@echo "make clean      remove what builds and tests left behind"
	@echo "make distclean  remove the environments too"

$(DEMO_READY): pyproject.toml constraints.txt
	test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e .
	touch $@

# torch comes first and pinned; otherwise pip may choose a build with several gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) $(TORCH_FLAGS) -c constraints.txt torch
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[test]"
	touch $@

# The repository's root is the package. Type checkers find it through this link.
.types/stemprover:
	mkdir -p .types
	ln -sfn .. .types/stemprover

venv: $(READY)

demo: $(DEMO_READY)
	$(DEMO_VENV)/bin/stemprover demo -o demo-out

lint: $(READY) .types/stemprover
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# A fresh machine may still be installing its first updates; apt waits for them.
APT := apt-get -o DPkg::Lock::Timeout=600

# Programs for tests: a browser for the pages, and two independent OSC clients for the bridge. They are installed if apt can
# be used; otherwise their tests are skipped.
programs:
	command -v chromium >/dev/null && command -v oscsend >/dev/null && command -v sclang >/dev/null \
		|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && $(APT) update -q \
		&& $(APT) install -q -y --no-install-recommends chromium liblo-tools supercollider-language; } \
		|| echo "no Chromium, liblo or SuperCollider: their tests are skipped"

# What the plug-in needs to be built, and the hosts that it is tested in. They are installed if apt can be used.
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
	@echo "built in $(PLUGIN)/dist; install it with: stemprover plugin install"

# Without JUCE the plug-in's tests are skipped; with it, the plug-in has to build.
plugin-or-not:
	if $(MAKE) --no-print-directory plugin-configured; then $(MAKE) --no-print-directory plugin; \
		else rm -rf $(PLUGIN)/dist; echo "the plug-in cannot be built here: its tests are skipped"; fi

hosts:
	command -v ardour7-lua >/dev/null && command -v jalv >/dev/null && command -v jackd >/dev/null && command -v sord_validate >/dev/null && command -v Xvfb >/dev/null \
		&& test -e /usr/include/jack/jack.h \
		|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && $(APT) update -q \
		&& DEBIAN_FRONTEND=noninteractive $(APT) install -q -y --no-install-recommends $(HOST_PACKAGES); } \
		|| echo "no Ardour, jalv, jackd, sord_validate or Xvfb: their tests are skipped"

# If apt can be used, a missing plug-in or host makes its tests fail rather than skip (tests/hosts.py).
pytest: $(READY) programs plugin-or-not hosts
	STEMPROVER_HOSTS=$$(command -v apt-get >/dev/null && test "$$(id -u)" = 0 && echo required) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS)

test: lint pytest

bench: $(READY)
	$(VENV)/bin/stemprover bench $(BENCH_FLAGS)

# STEMS names a folder of true stems, <song>/<stem>.wav; without it the pool is made from songs in Debian packages. Eight
# hours take 31 GB; CORPUS_FLAGS="--hours 4" makes fewer.
POOL := data/pool
$(POOL)/.ready: | $(READY)
	$(VENV)/bin/stemprover corpus build $(POOL) $(if $(STEMS),--stems $(STEMS)) $(CORPUS_FLAGS)
	touch $@

# Cases for `stemprover validate`, made from held-out songs of the pool.
cases/.ready: $(POOL)/.ready
	$(VENV)/bin/python -m stemprover.engine.train.cases $(POOL) cases --separated 20 --simulated 6
	touch $@

# The other methods, installed only for the comparison with them.
$(VENV)/.peers: $(READY)
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[peers]"
	touch $@

peers: $(VENV)/.peers cases/.ready
	$(VENV)/bin/python -m stemprover.benchmarks.peers cases/test --cases 6

# Measures what is missing in report/ and writes docs/results.md. To measure something again, delete its file in report/.
# SONGS names a folder of true stems of recorded songs, <song>/<stem>.wav.
results: $(VENV)/.peers cases/.ready plugin-or-not hosts
	$(VENV)/bin/python tools/make_results.py report --run --pool $(POOL) $(if $(SONGS),--songs $(SONGS))

train: $(READY) $(POOL)/.ready
	$(VENV)/bin/stemprover train --config $(RECIPE) --pool $(POOL) $(TRAIN_FLAGS)

# Afterwards set `trained` in the preset's preset.toml by hand, if the adapter is better than the base.
adapters: $(READY) cases/.ready
	for name in $(ADAPTERS); do \
		$(VENV)/bin/stemprover train --config presets/$$name/recipe.toml --pool $(POOL) --run runs/$$name && \
		cp runs/$$name/$$name.safetensors presets/$$name/adapter.safetensors && \
		$(VENV)/bin/python -m stemprover.engine.train.fit_trust $(wildcard cases/valid cases/valid-other cases/four-stems) \
			--adapter presets/$$name/adapter.safetensors --own $$name --most 4 || exit 1; \
	done

clean:
	rm -rf build dist *.egg-info .types .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out
	find . -name __pycache__ -not -path "./.venv*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(DEMO_VENV) $(PLUGIN)/build $(PLUGIN)/dist
