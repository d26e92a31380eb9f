"""What of the song stands in a stem at one gain: found, taken out, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.leakage import HIGHEST_GAIN, LeakCanceller, LeakState
from stemprover.engine.dsp.moving_sums import LONGEST
from stemprover.engine.dsp.stft import Stft, StftConfig
from stemprover.engine.features import FeatureMaker

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
def test_a_leak_at_one_gain_is_found_and_taken_out_at_any_level(g: float, level: float, seed: int) -> None:
    frames = LONGEST + 8
    true, rest = noise(seed, frames, level), noise(seed + 1001, frames, level)
    stem = true + np.float32(g) * rest
    left = true + rest - stem  # what the mixture leaves: the rest at 1 - g
    canceller = LeakCanceller()
    leak, _ = canceller.measure(stem, left, canceller.start(1))
    gain, coherence = leak.gain, leak.coherence
    full = gain[..., LONGEST:]
    assert np.abs(np.median(full) - g / (1 - g)) < 0.02
    assert abs(np.median(coherence[..., LONGEST:]) - g**2 / (1 + g**2)) < 0.05
    error = (canceller.cancel(stem, left, gain) - true)[..., LONGEST:]
    gained_db = 10 * np.log10(power((stem - true)[..., LONGEST:]) / power(error))
    # What is left is the gain's own error; in all bands together 1 part in 512 of the stem's power at most.
    assert gained_db > min(20.0, 10 * np.log10(g**2 * 512))


def test_where_nothing_leaks_next_to_nothing_is_taken() -> None:
    stem, rest = noise(1, 300), noise(2, 300)
    canceller = LeakCanceller()
    gain = canceller.measure(stem, rest, canceller.start(1))[0].gain
    change = canceller.cancel(stem, rest, gain) - stem
    assert power(change[..., LONGEST:]) < 1e-3 * power(stem[..., LONGEST:])
    assert power(change[..., :4]) < 0.05 * power(stem[..., :4]), "a few frames are no proof of a leak"


@pytest.mark.parametrize("silent", ["stem", "rest", "both"])
def test_silence_leaks_nothing(silent: str) -> None:
    stem, rest = noise(1, 20), noise(2, 20)
    stem, rest = stem * (silent == "rest"), rest * (silent == "stem")
    canceller = LeakCanceller()
    leak, _ = canceller.measure(stem, rest, canceller.start(1))
    gain, coherence = leak.gain, leak.coherence
    assert not gain.any()
    assert not coherence.any()
    assert np.array_equal(canceller.cancel(stem, rest, gain), stem)


def test_the_rest_turned_round_is_no_leak_and_a_loud_one_is_bounded() -> None:
    rest = noise(3, 150)
    canceller = LeakCanceller()
    assert not canceller.measure(-0.5 * rest, rest, canceller.start(1))[0].gain.any()
    assert canceller.measure(9.0 * rest, rest, canceller.start(1))[0].gain.max() == HIGHEST_GAIN


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 199), max_size=6))
def test_streamed_equals_whole_bit_for_bit(cuts: list[int]) -> None:
    rest = noise(5, 200)
    stem = noise(4, 200) + np.float32(0.3) * rest
    canceller = LeakCanceller()
    whole, _ = canceller.measure(stem, rest, canceller.start(1))
    state, parts = canceller.start(1), []
    edges = [0, *sorted(set(cuts)), 200]
    for a, b in pairwise(edges):
        part, state = canceller.measure(stem[..., a:b], rest[..., a:b], state)
        parts.append(part)
    for name in ("gain", "coherence", "masked"):
        found = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        assert np.array_equal(found, getattr(whole, name)), name


def test_what_a_mask_has_split_is_in_phase_and_two_sounds_are_not() -> None:
    frames = LONGEST + 8
    true, rest = noise(6, frames), noise(7, frames)
    canceller = LeakCanceller()

    def masked(stem: np.ndarray, left: np.ndarray) -> np.ndarray:
        return canceller.measure(stem, left, canceller.start(1))[0].masked[0, LONGEST:]

    mask = np.random.default_rng(0).random(true.shape).astype(np.float32)
    song = true + rest
    assert masked(mask * song, song - mask * song) == pytest.approx(1.0, abs=1e-4)
    # Of bins with random phases the cosines cancel: what is left falls with the square root of their number.
    assert np.abs(masked(true, rest)).max() < 0.02
    assert not masked(true, np.zeros_like(rest)).any()


def test_nothing_is_remembered_beyond_its_memory() -> None:
    rest = noise(5, 2 * LONGEST)
    stem = noise(4, 2 * LONGEST) + np.float32(0.3) * rest
    canceller = LeakCanceller()
    a = canceller.measure(stem, rest, canceller.start(1))[0].gain
    other: LeakState = canceller.measure(noise(8, 40, 100.0), noise(9, 40, 100.0), canceller.start(1))[1]
    b = canceller.measure(stem, rest, other)[0].gain
    assert np.abs(a - b)[..., LONGEST:].max() <= 1e-6
    assert np.abs(a - b)[..., :LONGEST].max() > 0.01


def test_features_hold_the_stem_without_its_leak_and_the_stem_itself_where_there_is_no_song() -> None:
    left_right = noise(1, 2 * LONGEST)
    rest = noise(2, 2 * LONGEST)
    stem = left_right + np.float32(0.3) * rest
    maker = FeatureMaker()
    alone = maker(stem, None, maker.start(1))[0]
    assert np.array_equal(alone.cancelled, alone.stem)
    assert not alone.masked.any()
    assert np.array_equal(alone.references, np.stack([alone.stem] * 3, axis=1))
    given = maker(stem, left_right + rest, maker.start(1))[0]
    truth = maker.latent.encode(left_right)
    late = slice(LONGEST, None)
    before, after = (np.abs(z - truth)[..., late].mean() for z in (given.stem, given.cancelled))
    assert after < 0.25 * before
    assert np.array_equal(given.references[:, 2], given.cancelled)


def test_features_after_listening_are_those_of_the_whole() -> None:
    rest = noise(2, 220)
    stem = noise(1, 220) + np.float32(0.3) * rest
    mix = stem + rest
    maker = FeatureMaker()
    whole = maker(stem, mix, maker.start(1))[0]
    state = maker.listen(stem[..., :150], mix[..., :150], maker.start(1))
    later = maker(stem[..., 150:], mix[..., 150:], state)[0]
    assert np.abs(later.control - whole.control[..., 150:]).max() <= 1e-5
    assert np.array_equal(later.cancelled, whole.cancelled[..., 150:])
    assert np.array_equal(later.masked, whole.masked[..., 150:])
    assert whole.masked[..., LONGEST:].min() > 0.2, "the leak is in phase with what is left of it"
