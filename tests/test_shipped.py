"""The shipped base bundle, adapters and demo belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover import Repairer, list_presets
from stemprover.benchmarks.speed import excerpt
from stemprover.engine.adapters import Adapter, fingerprint
from stemprover.engine.bundle import Bundle, base_bundle
from stemprover.engine.metrics.basic import pause_level, sdr
from stemprover.engine.repair import QUALITY_STEPS

PRESETS = base_bundle().parent
DEMO = PRESETS / "demo"


def demo(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Stem and mix of the demo (2, T)."""
    count = round(44100 * seconds)
    return tuple(soundfile.read(DEMO / f"{n}.flac", dtype="float32")[0].T[:, :count] for n in ("separated", "song"))


def test_the_shipped_models_are_small() -> None:
    files = [*base_bundle().iterdir(), *PRESETS.glob("*/adapter.safetensors")]
    assert sum(file.stat().st_size for file in files) <= 24e6


def test_every_shipped_adapter_belongs_to_the_shipped_base() -> None:
    import onnx

    bundle = Bundle.load(base_bundle())
    kernels = {
        f"{name}.{item.name.removesuffix('.weight')}": onnx.numpy_helper.to_array(item)
        for name, graph in bundle.graphs.items()
        for item in onnx.load_from_string(graph).graph.initializer
    }
    paths = sorted(PRESETS.glob("*/adapter.safetensors"))
    assert len(paths) == 5
    for path in paths:
        adapter = Adapter.load(path)
        assert adapter.base == fingerprint({layer: kernels[layer] for layer in adapter.factors}), path


def test_every_shipped_preset_repairs_and_an_untrained_one_equals_the_base() -> None:
    stem, mix = demo(1.0)
    base = Repairer(quality="draft").process(stem, 44100, mix)
    assert np.abs(base - stem).max() > 1e-4
    for preset in list_presets():
        repaired = Repairer(preset, quality="draft").process(stem, 44100, mix)
        if not preset.trained:
            assert repaired.tobytes() == base.tobytes(), preset.name


@pytest.mark.parametrize("role", [None, "vocals"])
@pytest.mark.parametrize("with_mix", [True, False])
def test_a_true_stem_comes_back_at_40_db_and_its_pauses_stay_as_quiet(role: str | None, with_mix: bool) -> None:
    truth, mix = (soundfile.read(DEMO / f"{n}.flac", dtype="float32")[0].T[:, : 3 * 44100] for n in ("truth", "song"))
    pause = slice(44100, 2 * 44100)
    mix[:, pause] -= truth[:, pause]
    truth[:, pause] = 1e-4 * np.random.default_rng(0).standard_normal((2, 44100))
    repaired = Repairer("general").process(truth, 44100, mix if with_mix else None, role=role)
    assert sdr(repaired, truth) >= 40.0
    assert pause_level(repaired, truth) <= pause_level(truth, truth) + 1.0


def test_every_adapter_has_its_recipe() -> None:
    from stemprover.engine.train.options import load_options

    for path in PRESETS.glob("*/adapter.safetensors"):
        options = load_options(path.with_name("recipe.toml"))
        assert options.adapter == path.parent.name
        assert options.crop.artefacts == (options.adapter,)
        assert options.start_from == base_bundle()


@pytest.mark.parametrize("quality", QUALITY_STEPS)
def test_every_quality_repairs_with_and_without_the_mix(quality: str) -> None:
    stem, mix = demo(1.0)
    repairer = Repairer(quality=quality)
    for used in (mix, None):
        repaired = repairer.process(stem, 44100, used)
        assert np.isfinite(repaired).all()
        assert np.abs(repaired - stem).max() < 0.5


def test_the_benchmarks_excerpt_can_have_any_length() -> None:
    stem, mix = excerpt(40.0)
    assert stem.shape == mix.shape == (2, 40 * 44100)
    assert stem.any()


def test_the_bundle_contains_no_path_of_the_machine_that_made_it() -> None:
    for path in base_bundle().iterdir():
        content = path.read_bytes()
        assert b"/home/" not in content
        assert str(Path.cwd()).encode() not in content
