"""A mask-based separator's stem is repaired with its residual and a Wiener filter, in files as in streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound, streamed
from paths import DEMO
from stemprover.engine.errors import OptionError
from stemprover.engine.repair import WITH_RESIDUAL, WITHOUT_RESIDUAL, Repairer
from stemprover.engine.segments import SegmentConfig
from stemprover.engine.stream import CorrectionBlend, magnitude_limit

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def with_residual(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle, steps=1, jobs=1, separated=True)


def test_the_residuals_correction_is_subtracted_from_the_stem() -> None:
    stem, mix = (
        soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=3 * 44100)[0].T for name in ("separated", "song")
    )
    alone = Repairer(jobs=1, restrained=False)
    correction = alone.process(stem, 44100, mix) - stem
    other = alone.process(mix - stem, 44100, mix) - (mix - stem)
    separated = Repairer(jobs=1, restrained=False, separated=True)
    separated.correction_blend = replace(WITH_RESIDUAL, wiener=0.0)
    found = separated.process(stem, 44100, mix) - stem
    wanted = WITH_RESIDUAL.stem * correction - WITH_RESIDUAL.residual * other
    assert np.sum(other**2) > 1e-2 * np.sum(correction**2), "the test needs a correction of the residual"
    assert np.sum((found - wanted) ** 2) < 1e-3 * np.sum(wanted**2), "equal but for the magnitude limit"


def masked(seconds: float, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A stem in phase with its residual, as a separator's mask leaves it, and the mix."""
    stem = sound(seconds, channels=channels)
    mix = stem + np.linspace(0.4, 0.8, channels, dtype=np.float32)[:, None] * stem
    return stem, mix + np.float32(0.3) * sound(seconds, seed=2, channels=channels)


def test_the_wiener_filters_correction_is_added_to_its_own_frames(with_residual: Repairer) -> None:
    model = replace(with_residual.correction_stream(), blend=CorrectionBlend(0.0, 0.0, 0.5))
    stem, mix = (x[None, :, : 150 * model.timing.hop] for x in masked(2.0))
    correction, before, _ = model._spectra(stem, mix, model.start(), False)
    y, m = (model.stft.analysis(x[0], model.stft.start_analysis(2))[0][None] for x in (stem, mix))
    covariances, _ = model.wiener.measure(y, m - y, model.wiener.start(1))
    ahead = model.runtime.bundle.lookahead
    assert np.allclose(before[..., ahead:], y[..., :-ahead], atol=1e-4)
    wanted = 0.5 * model.wiener.correction(y[..., :-ahead], m[..., :-ahead], covariances[..., ahead:])
    error, size = (np.square(np.abs(x[..., 20:])).sum() for x in (correction[..., ahead:] - wanted, wanted))
    assert error < 1e-3 * size, "equal but for the magnitude limit"


def test_the_wiener_filter_leaves_a_true_stem_unchanged(with_residual: Repairer) -> None:
    model = replace(with_residual.correction_stream(), blend=CorrectionBlend(0.0, 0.0, 0.5))
    true, rest = (0.1 * np.random.default_rng(n).standard_normal((1, 2, 90112)).astype(np.float32) for n in (1, 2))
    correction, _ = model.process(true, true + rest, model.start())
    assert np.sum(correction[..., 45056:] ** 2) < 1e-6 * np.sum(true[..., 45056:] ** 2)


@pytest.mark.parametrize("name", ["stem", "residual", "wiener"])
@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_an_invalid_weight_is_an_error_that_names_it(name: str, weight: float) -> None:
    with pytest.raises(OptionError, match=f"{name}={weight:g}"):
        replace(WITH_RESIDUAL, **{name: weight})


def test_without_repair_residual_only_the_stem_is_repaired(lively_bundle: Path) -> None:
    model = Repairer(bundle=lively_bundle, separated=True, repair_residual=False).correction_stream()
    assert model.blend == WITHOUT_RESIDUAL
    assert len(model.start().sources) == 1


@pytest.fixture(scope="module", params=["with residual", "without residual"])
def separated(request: pytest.FixtureRequest, with_residual: Repairer, lively_bundle: Path) -> Repairer:
    if request.param == "with residual":
        return with_residual
    return Repairer(bundle=lively_bundle, steps=1, jobs=1, separated=True, repair_residual=False)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 40), st.integers(100, 20000))
def test_a_separated_stem_streamed_equals_whole(separated: Repairer, frames: int, block: int) -> None:
    stem, mix = masked(0.9)
    stem[:, 9000:30000] = 0.0
    whole = separated.process(stem, 44100, mix)
    assert np.abs(streamed(separated, stem, mix, 44100, block, frames) - whole).max() <= TOLERANCE


def test_with_the_residual_segments_equal_a_single_run_and_silence_stays_silent(lively_bundle: Path) -> None:
    stem, mix = masked(9.0, channels=4)
    stem[:, 150000:220000] = 0.0
    single, several = (
        Repairer(bundle=lively_bundle, steps=1, separated=True, jobs=jobs, segments=segments)
        for jobs, segments in ((1, SegmentConfig(10**6, 10**6)), (3, SegmentConfig(60, 130)))
    )
    whole = single.process(stem, 44100, mix)
    assert np.abs(several.process(stem, 44100, mix) - whole).max() <= TOLERANCE
    assert np.abs(whole - stem).max() > 0.01
    assert not whole[:, 152000:218000].any(), "even though the residual is not silent"


def test_with_the_residual_no_bin_exceeds_the_magnitude_limit(with_residual: Repairer) -> None:
    stem = sound(1.0)
    mix = np.float32(1.3) * stem  # in phase with its residual, so that the filter takes part
    model = replace(with_residual.correction_stream(), blend=CorrectionBlend(0.5, 0.5, 1.0), trust=None)
    length = stem.shape[1] // model.timing.hop * model.timing.hop
    signals = stem[None, :, :length], mix[None, :, :length]
    correction, before, _ = model._spectra(*signals, model.start(), False)
    without = replace(model, blend=CorrectionBlend(0.5, 0.5, 0.0))
    assert np.abs(correction - without._spectra(*signals, without.start(), False)[0]).max() > 0.1
    spectra = model.stft.analysis(mix[:, :length], model.stft.start_analysis(2))[0]
    late = model.runtime.bundle.lookahead
    limit = magnitude_limit(before[..., late:], spectra[None, ..., :-late])
    assert np.all(np.abs(before + correction)[..., late:] <= limit * 1.0001 + 1e-5)


def test_without_the_mix_there_is_no_residual(with_residual: Repairer, lively_bundle: Path) -> None:
    stem = sound(1.0)
    alone = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    assert np.array_equal(with_residual.process(stem, 44100), alone.process(stem, 44100))
