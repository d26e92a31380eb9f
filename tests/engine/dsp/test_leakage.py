"""Leakage at a constant gain is measured and cancelled, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.bands import LONGEST
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.leakage import HIGHEST_GAIN, LeakageCanceller, LeakageState
from stemprover.engine.dsp.stft import Stft, StftConfig
from stemprover.engine.features import LAYOUT, ROLES, FeatureMaker

BINS = BandLayout().bins


def noise(seed: int, frames: int, level: float = 1.0) -> np.ndarray:
    """Mid and side (1, 2, F, N) of white noise, overlapping as the frames of a stem do."""
    rng = np.random.default_rng(seed)
    stft = Stft(StftConfig())
    audio = rng.normal(0.0, level, (2, stft.config.delay_samples + frames * stft.config.hop)).astype(np.float32)
    return stft.analysis(audio, stft.start_analysis(2))[0][None, :, :, -frames:]


def power(x: np.ndarray) -> float:
    return float(np.square(np.abs(x)).sum())


@settings(max_examples=8, deadline=None)
@given(g=st.floats(0.08, 0.55), level=st.floats(1e-4, 10.0), seed=st.integers(0, 1000))
def test_leakage_is_measured_and_cancelled_at_any_level(g: float, level: float, seed: int) -> None:
    frames = LONGEST + 8
    true, rest = noise(seed, frames, level), noise(seed + 1001, frames, level)
    stem = true + np.float32(g) * rest
    residual = true + rest - stem  # the rest at 1 - g
    canceller = LeakageCanceller()
    leakage, _ = canceller.measure(stem, residual, canceller.start(1))
    gain, coherence = leakage.gain, leakage.coherence
    full = gain[..., LONGEST:]
    assert np.abs(np.median(full) - g / (1 - g)) < 0.02
    assert abs(np.median(coherence[..., LONGEST:]) - g**2 / (1 + g**2)) < 0.05
    error = (canceller.cancel(stem, residual, gain) - true)[..., LONGEST:]
    gained_db = 10 * np.log10(power((stem - true)[..., LONGEST:]) / power(error))
    # The remaining error is that of the gain: over all bands at most 1/512 of the stem's power.
    assert gained_db > min(20.0, 10 * np.log10(g**2 * 512))


def test_hardly_anything_is_cancelled_without_leakage() -> None:
    stem, rest = noise(1, 300), noise(2, 300)
    canceller = LeakageCanceller()
    gain = canceller.measure(stem, rest, canceller.start(1))[0].gain
    correction = canceller.cancel(stem, rest, gain) - stem
    assert power(correction[..., LONGEST:]) < 1e-3 * power(stem[..., LONGEST:])
    assert power(correction[..., :4]) < 0.05 * power(stem[..., :4]), "a few frames do not prove leakage"


@pytest.mark.parametrize("silent", ["stem", "rest", "both"])
def test_silence_has_no_leakage(silent: str) -> None:
    stem, rest = noise(1, 20), noise(2, 20)
    stem, rest = stem * (silent == "rest"), rest * (silent == "stem")
    canceller = LeakageCanceller()
    leakage, _ = canceller.measure(stem, rest, canceller.start(1))
    gain, coherence = leakage.gain, leakage.coherence
    assert not gain.any()
    assert not coherence.any()
    assert np.array_equal(canceller.cancel(stem, rest, gain), stem)


def test_inverted_polarity_is_not_leakage_and_the_gain_is_bounded() -> None:
    rest = noise(3, 150)
    canceller = LeakageCanceller()
    assert not canceller.measure(-0.5 * rest, rest, canceller.start(1))[0].gain.any()
    assert canceller.measure(9.0 * rest, rest, canceller.start(1))[0].gain.max() == HIGHEST_GAIN


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 199), max_size=6))
def test_streamed_equals_whole_bit_for_bit(cuts: list[int]) -> None:
    rest = noise(5, 200)
    stem = noise(4, 200) + np.float32(0.3) * rest
    canceller = LeakageCanceller()
    whole, _ = canceller.measure(stem, rest, canceller.start(1))
    state, parts = canceller.start(1), []
    edges = [0, *sorted(set(cuts)), 200]
    for a, b in pairwise(edges):
        part, state = canceller.measure(stem[..., a:b], rest[..., a:b], state)
        parts.append(part)
    for name in ("gain", "coherence", "mask_likelihood"):
        found = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        assert np.array_equal(found, getattr(whole, name)), name


def test_the_mask_likelihood_is_high_for_masked_stems_and_low_for_true_ones() -> None:
    frames = LONGEST + 8
    true, rest = noise(6, frames), noise(7, frames)
    canceller = LeakageCanceller()

    def likelihood(stem: np.ndarray, residual: np.ndarray) -> np.ndarray:
        return canceller.measure(stem, residual, canceller.start(1))[0].mask_likelihood[0, LONGEST:]

    mask = np.random.default_rng(0).random(true.shape).astype(np.float32)
    mix = true + rest
    assert likelihood(mask * mix, mix - mask * mix) == pytest.approx(1.0, abs=1e-4)
    # With random phases the cosines cancel: the rest falls with the square root of the number of bins.
    assert np.abs(likelihood(true, rest)).max() < 0.02
    assert not likelihood(true, np.zeros_like(rest)).any()


def test_nothing_older_than_the_memory_counts() -> None:
    rest = noise(5, 2 * LONGEST)
    stem = noise(4, 2 * LONGEST) + np.float32(0.3) * rest
    canceller = LeakageCanceller()
    a = canceller.measure(stem, rest, canceller.start(1))[0].gain
    other: LeakageState = canceller.measure(noise(8, 40, 100.0), noise(9, 40, 100.0), canceller.start(1))[1]
    b = canceller.measure(stem, rest, other)[0].gain
    assert np.abs(a - b)[..., LONGEST:].max() <= 1e-6
    assert np.abs(a - b)[..., :LONGEST].max() > 0.01


def test_features_have_the_stem_without_leakage_or_without_the_mix_the_stem_itself() -> None:
    left_right = noise(1, 2 * LONGEST)
    rest = noise(2, 2 * LONGEST)
    stem = left_right + np.float32(0.3) * rest
    maker = FeatureMaker()
    alone = maker(stem, None, maker.start(1))[0]
    assert np.array_equal(alone.cancelled, alone.stem)
    assert not alone.mask_likelihood.any()
    assert np.array_equal(alone.references, np.stack([alone.stem] * 3, axis=1))
    given = maker(stem, left_right + rest, maker.start(1))[0]
    truth = maker.latent.encode(left_right)
    late = slice(LONGEST, None)
    before, after = (np.abs(z - truth)[..., late].mean() for z in (given.stem, given.cancelled))
    assert after < 0.25 * before
    assert np.array_equal(given.references[:, 2], given.cancelled)


def test_features_after_listening_equal_those_of_the_whole() -> None:
    rest = noise(2, 220)
    stem = noise(1, 220) + np.float32(0.3) * rest
    mix = stem + rest
    maker = FeatureMaker()
    whole = maker(stem, mix, maker.start(1))[0]
    state = maker.listen(stem[..., :150], mix[..., :150], maker.start(1))
    later = maker(stem[..., 150:], mix[..., 150:], state)[0]
    assert np.abs(later.control - whole.control[..., 150:]).max() <= 1e-5
    assert np.array_equal(later.cancelled, whole.cancelled[..., 150:])
    assert np.array_equal(later.mask_likelihood, whole.mask_likelihood[..., 150:])
    assert whole.mask_likelihood[..., LONGEST:].min() > 0.2, "leakage is in phase with its residual"


def test_features_tell_the_role_for_the_whole_stream_and_nothing_if_it_is_not_known() -> None:
    stem = noise(1, 30)
    maker = FeatureMaker()
    state = maker.start(1, "bass")
    for part in (stem[..., :10], stem[..., 10:]):
        made, state = maker(part, None, state)
        assert (made.control[0, LAYOUT.role, 0, 0] == [role == "bass" for role in ROLES]).all()
        assert np.ptp(made.control[:, LAYOUT.role], axis=(2, 3)).max() == 0.0
    assert maker.listen(stem, None, maker.start(1, "keys")).role == "keys"
    assert not maker(stem, None, maker.start(1))[0].control[:, LAYOUT.role].any()
    with pytest.raises(ValueError, match="singer"):
        maker.start(1, "singer")
