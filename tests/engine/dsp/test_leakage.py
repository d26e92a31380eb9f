"""Leakage at a constant gain is measured and cancelled, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound
from stemprover.engine.dsp.bands import LONGEST
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.leakage import HIGHEST_GAIN, Leakage, LeakageCanceller, LeakageState, masked_mix, mid_side
from stemprover.engine.dsp.stft import Stft, StftConfig, whole_stft
from stemprover.engine.errors import OptionError
from stemprover.engine.features import LAYOUT, FeatureMaker
from stemprover.engine.stem_names import ROLES

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
    # Four pairs, because chance alone moves the median gain of one by 0.02.
    true, rest = (
        np.concatenate([noise(seed + first + 10_000 * n, frames, level) for n in range(4)]) for first in (0, 1001)
    )
    stem = true + np.float32(g) * rest
    residual = true + rest - stem  # the rest at 1 - g
    canceller = LeakageCanceller()
    leakage, _ = canceller.measure(stem, residual, canceller.start(len(stem)))
    gain, coherence = leakage.gain, leakage.coherence
    full = gain[..., LONGEST:]
    assert np.abs(np.median(full) - g / (1 - g)) < 0.02
    assert abs(np.median(coherence[..., LONGEST:]) - g**2 / (1 + g**2)) < 0.05
    error = ((stem - canceller.part(residual, gain)) - true)[..., LONGEST:]
    gained_db = 10 * np.log10(power((stem - true)[..., LONGEST:]) / power(error))
    # The remaining error is that of the gain: over all bands at most 1/512 of the stem's power.
    assert gained_db > min(20.0, 10 * np.log10(g**2 * 512))


def test_rounding_errors_change_next_to_nothing() -> None:
    """Streamed equals whole only if it does not matter in which order a processor adds."""
    rng = np.random.default_rng(0)
    stem = sound(6.0)
    stem, mix = (
        mid_side(whole_stft(Stft(), audio)[None]) for audio in (stem, 1.5 * stem + np.float32(0.3) * sound(6.0, seed=5))
    )
    canceller = LeakageCanceller()

    def measured(error: float) -> Leakage:
        y, m = (x * (1 + np.float32(error) * rng.standard_normal(x.shape).astype(np.float32)) for x in (stem, mix))
        return canceller.measure(y, m - y, canceller.start(1))[0]

    exact = measured(0.0)
    assert exact.gain.max() > 0.5
    for _ in range(3):
        rounded = measured(6e-8)
        for name in ("gain", "certainty", "dependence", "coherence", "mask_likelihood"):
            assert np.abs(getattr(rounded, name) - getattr(exact, name)).max() < 6e-5, name


def test_hardly_anything_is_cancelled_without_leakage() -> None:
    stem, rest = noise(1, 300), noise(2, 300)
    canceller = LeakageCanceller()
    gain = canceller.measure(stem, rest, canceller.start(1))[0].gain
    correction = -canceller.part(rest, gain)
    assert power(correction[..., LONGEST:]) < 1e-3 * power(stem[..., LONGEST:])
    assert power(correction[..., :4]) < 0.05 * power(stem[..., :4]), "a few frames do not prove leakage"


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), wrong_db=st.floats(-0.3, 0.3))
def test_a_stem_in_a_mix_of_another_level_has_no_leakage(seed: int, wrong_db: float) -> None:
    """The residual then contains the stem, not the reverse; sounds come and go, so their powers tell."""
    frames = 2 * LONGEST

    def fading(seed: int) -> np.ndarray:
        level = 0.03 + np.random.default_rng(seed).random(frames // 8)
        return noise(seed, frames) * level.repeat(8).astype(np.float32)

    true, rest = fading(seed), fading(seed + 1001)
    mix = np.float32(10 ** (wrong_db / 20)) * (true + rest)
    canceller = LeakageCanceller()
    leakage, _ = canceller.measure(true, mix - true, canceller.start(1))
    error = canceller.part(mix - true, leakage.gain)
    assert power(error[..., LONGEST:]) < 1e-4 * power(true[..., LONGEST:])


@settings(max_examples=8, deadline=None)
@given(loss=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_a_separators_mask_is_not_leakage(loss: float, seed: int) -> None:
    """It gives every bin of the mix to stem and residual, so what it lets through cannot be subtracted."""
    frames = LONGEST + 8
    mix = noise(seed, frames) + noise(seed + 1001, frames)
    mask = (np.random.default_rng(seed).random(mix.shape) < loss).astype(np.float32)
    mask = 0.2 * mask + 0.8 * np.random.default_rng(seed + 1).random(mix.shape).astype(np.float32)
    canceller = LeakageCanceller()
    gain = canceller.measure(mask * mix, mix - mask * mix, canceller.start(1))[0].gain
    assert not gain[..., LONGEST:].any()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), tilt=st.floats(-0.9, 0.9))
def test_leakage_through_an_equaliser_is_cancelled_in_each_band(seed: int, tilt: float) -> None:
    frames, layout = LONGEST + 8, BandLayout()
    true, rest = noise(seed, frames), noise(seed + 1001, frames)
    bands = 0.3 * (1 + tilt * np.linspace(-1, 1, layout.bands)).astype(np.float32)
    stem = true + np.repeat(bands, layout.widths)[:, None] * rest
    canceller = LeakageCanceller()
    gain = canceller.measure(stem, true + rest - stem, canceller.start(1))[0].gain
    error = stem - canceller.part(true + rest - stem, gain) - true
    late = slice(LONGEST, None)
    assert power(error[..., late]) < 0.05 * power((stem - true)[..., late])


@pytest.mark.parametrize("silent", ["stem", "rest", "both"])
def test_silence_has_no_leakage(silent: str) -> None:
    stem, rest = noise(1, 20), noise(2, 20)
    stem, rest = stem * (silent == "rest"), rest * (silent == "stem")
    canceller = LeakageCanceller()
    leakage, _ = canceller.measure(stem, rest, canceller.start(1))
    gain, coherence = leakage.gain, leakage.coherence
    assert not gain.any()
    assert not coherence.any()
    assert not canceller.part(rest, gain).any()


def test_inverted_polarity_is_not_leakage_and_the_gain_is_bounded() -> None:
    rest = noise(3, 150)
    canceller = LeakageCanceller()
    assert not canceller.measure(-0.5 * rest, rest, canceller.start(1))[0].gain.any()
    assert canceller.measure(noise(4, 150) + 9.0 * rest, rest, canceller.start(1))[0].gain.max() == HIGHEST_GAIN


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
    for name in ("gain", "coherence", "mask_likelihood", "dependence", "certainty"):
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


def random_bins(seed: int, level: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((1, 2, 40, 30)) + 1j * rng.standard_normal((1, 2, 40, 30))
    return (level * made).astype(np.complex64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), level=st.floats(0.01, 30.0))
def test_the_mask_is_between_0_and_1_and_does_not_depend_on_the_level(seed: int, level: float) -> None:
    stem, mix = random_bins(seed), random_bins(seed + 5000)
    out = masked_mix(stem, mix)
    gain = out / mix
    assert np.abs(gain.imag).max() < 1e-5, "the phase is the mix's"
    assert -1e-6 < gain.real.min() <= gain.real.max() < 1 + 1e-6
    louder = masked_mix(np.float32(level) * stem, np.float32(level) * mix)
    np.testing.assert_allclose(louder, np.float32(level) * out, rtol=1e-3, atol=1e-5 * level)


def test_a_mix_that_is_the_stem_comes_back_and_one_without_it_is_silent() -> None:
    stem = random_bins(1)
    np.testing.assert_allclose(masked_mix(stem, stem), stem, rtol=1e-6)
    assert not masked_mix(np.zeros_like(stem), stem).any()
    assert not masked_mix(stem, np.zeros_like(stem)).any()
    assert not masked_mix(np.zeros_like(stem), np.zeros_like(stem)).any()


def test_what_a_fault_took_from_the_stem_comes_back_where_the_rest_is_softer() -> None:
    true, rest = random_bins(1), random_bins(2, 0.1)
    softer = np.float32(0.8) * true
    before, after = (float(np.mean(np.abs(x - true) ** 2)) for x in (softer, masked_mix(softer, true + rest)))
    assert after < 0.3 * before


def test_features_have_the_stem_without_leakage_or_without_the_mix_the_stem_itself() -> None:
    left_right = noise(1, 2 * LONGEST)
    rest = noise(2, 2 * LONGEST)
    stem = left_right + np.float32(0.3) * rest
    maker = FeatureMaker()
    alone = maker(stem, None, maker.start(1))[0]
    assert np.array_equal(alone.cancelled, alone.stem)
    assert alone.leakage is None
    assert np.array_equal(alone.references, np.stack([alone.stem] * 4, axis=1))
    given = maker(stem, left_right + rest, maker.start(1))[0]
    truth = maker.latent.encode(left_right)
    late = slice(LONGEST, None)
    before, after = (np.abs(z - truth)[..., late].mean() for z in (given.stem, given.cancelled))
    assert after < 0.25 * before
    assert np.array_equal(given.references[:, 2], given.cancelled)
    assert np.array_equal(given.references[:, 3], given.masked)
    assert np.abs(given.masked - truth)[..., late].mean() < np.abs(given.mix - truth)[..., late].mean()


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
    assert later.leakage is not None
    assert whole.leakage is not None
    for name in ("mask_likelihood", "dependence", "certainty"):
        assert np.array_equal(getattr(later.leakage, name), getattr(whole.leakage, name)[..., 150:])
    assert whole.leakage.mask_likelihood[..., LONGEST:].min() > 0.2, "leakage is in phase with its residual"


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
    with pytest.raises(OptionError, match="singer"):
        maker.start(1, "singer")
