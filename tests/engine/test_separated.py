"""A mask-based separator's stem is repaired with the network and a Wiener filter, in files as in streams."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound, streamed
from stemprover.engine.errors import OptionError
from stemprover.engine.repair import SEPARATED_BLEND, Repairer
from stemprover.engine.segments import SegmentConfig
from stemprover.engine.stream import CorrectionBlend, magnitude_limit
from stemprover.engine.trust import Trust

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def separated(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle, steps=1, jobs=1, separated=True)


def masked(seconds: float, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A stem in phase with its residual, as a separator's mask leaves it, and the mix."""
    stem = sound(seconds, channels=channels)
    mix = stem + np.linspace(0.4, 0.8, channels, dtype=np.float32)[:, None] * stem
    return stem, mix + np.float32(0.3) * sound(seconds, seed=2, channels=channels)


def test_the_wiener_filters_correction_is_added_to_its_own_frames(separated: Repairer) -> None:
    model = replace(separated.correction_stream(), blend=CorrectionBlend(0.0, 0.5))
    stem, mix = (x[None, :, : 150 * model.timing.hop] for x in masked(2.0))
    correction, before, _ = model._spectra(stem, mix, model.start(), False)
    y, m = (model.stft.analysis(x[0], model.stft.start_analysis(2))[0][None] for x in (stem, mix))
    covariances, _ = model.wiener.measure(y, m - y, model.wiener.start(1))
    ahead = model.runtime.bundle.lookahead
    assert np.allclose(before[..., ahead:], y[..., :-ahead], atol=1e-4)
    wanted = 0.5 * model.wiener.correction(y[..., :-ahead], m[..., :-ahead], covariances[..., ahead:])
    error, size = (np.square(np.abs(x[..., 20:])).sum() for x in (correction[..., ahead:] - wanted, wanted))
    assert error < 1e-3 * size, "equal but for the magnitude limit"


def test_the_wiener_filter_leaves_a_true_stem_unchanged(separated: Repairer) -> None:
    model = replace(separated.correction_stream(), blend=CorrectionBlend(0.0, 0.5))
    true, rest = (0.1 * np.random.default_rng(n).standard_normal((1, 2, 90112)).astype(np.float32) for n in (1, 2))
    correction, _ = model.process(true, true + rest, model.start())
    assert np.sum(correction[..., 45056:] ** 2) < 1e-6 * np.sum(true[..., 45056:] ** 2)


@pytest.mark.parametrize("name", ["stem", "wiener"])
@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_an_invalid_weight_is_an_error_that_names_it(name: str, weight: float) -> None:
    with pytest.raises(OptionError, match=f"{name}={weight:g}"):
        replace(SEPARATED_BLEND, **{name: weight})


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 40), st.integers(100, 20000))
def test_a_separated_stem_streamed_equals_whole(separated: Repairer, frames: int, block: int) -> None:
    stem, mix = masked(0.9)
    stem[:, 9000:30000] = 0.0
    whole = separated.process(stem, 44100, mix)
    assert np.abs(streamed(separated, stem, mix, 44100, block, frames) - whole).max() <= TOLERANCE


def test_segments_equal_a_single_run_and_silence_stays_silent(lively_bundle: Path) -> None:
    stem, mix = masked(6.0, channels=4)
    stem[:, 90000:160000] = 0.0
    single, several = (
        Repairer(bundle=lively_bundle, steps=1, separated=True, jobs=jobs, segments=segments)
        for jobs, segments in ((1, SegmentConfig(10**6, 10**6)), (3, SegmentConfig(60, 130)))
    )
    whole = single.process(stem, 44100, mix)
    assert np.abs(several.process(stem, 44100, mix) - whole).max() <= TOLERANCE
    assert np.abs(whole - stem).max() > 0.01
    assert not whole[:, 92000:158000].any(), "even though the mix is not silent"


def test_no_bin_exceeds_the_magnitude_limit(separated: Repairer) -> None:
    stem = sound(1.0)
    mix = np.float32(1.3) * stem  # in phase with its residual, so that the filter takes part
    model = replace(separated.correction_stream(), blend=CorrectionBlend(1.0, 1.0), trust=Trust())
    length = stem.shape[1] // model.timing.hop * model.timing.hop
    signals = stem[None, :, :length], mix[None, :, :length]
    correction, before, _ = model._spectra(*signals, model.start(), False)
    without = replace(model, blend=CorrectionBlend(1.0, 0.0))
    assert np.abs(correction - without._spectra(*signals, without.start(), False)[0]).max() > 0.1
    spectra = model.stft.analysis(mix[:, :length], model.stft.start_analysis(2))[0]
    late = model.runtime.bundle.lookahead
    limit = magnitude_limit(before[..., late:], spectra[None, ..., :-late])
    assert np.all(np.abs(before + correction)[..., late:] <= limit * 1.0001 + 1e-5)


def test_without_the_mix_it_is_repaired_like_any_other_stem(separated: Repairer, lively_bundle: Path) -> None:
    stem = sound(1.0)
    alone = Repairer(bundle=lively_bundle, steps=1, jobs=1)
    assert np.array_equal(separated.process(stem, 44100), alone.process(stem, 44100))
