"""Whether a separator's mask left a stem."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.detect.separation import (
    GAINS,
    LOWEST_DB,
    ONE_GAIN_DB,
    SEPARATED,
    STEP_DB,
    SeparationDetector,
    separation,
    separators_mark,
)

FRAMES = 200
DETECTOR = SeparationDetector(44100)


def noise(seed: int) -> np.ndarray:
    """Spectra (2, F, N), whose bins are sparse, as those of music are: their levels lie within 60 dB."""
    rng = np.random.default_rng(seed)
    shape = (2, DETECTOR.layout.bins, FRAMES)
    found = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * 10 ** rng.uniform(-3, 0, shape[1:])
    return found.astype(np.complex64)


def heard(stem: np.ndarray, song: np.ndarray) -> float:
    found = DETECTOR(stem, song, DETECTOR.start())[0]
    return separation(float(found.unexplained.mean()), found.gains.sum(axis=1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), gain_db=st.floats(-40.0, -7.0))
def test_bleed_is_at_one_gain_and_a_mask_is_not(seed: int, gain_db: float) -> None:
    stem, rest = noise(seed), noise(seed + 1000)
    song = stem + rest
    leaked = heard(stem + np.float32(10 ** (gain_db / 20)) * rest, song)
    powers = [np.square(np.abs(x)).sum(axis=0) for x in (stem, rest)]
    assert heard(song * powers[0] / (powers[0] + powers[1]), song) > SEPARATED > max(leaked, heard(stem, song))


@pytest.mark.parametrize("gain_db", [-60.0, -20.0, -8.0])
def test_gains_are_counted_at_their_level_by_the_amplitude_of_the_rest(gain_db: float) -> None:
    rest = noise(1)
    gains = DETECTOR(
        rest * np.float32(10 ** (gain_db / 20)), rest * np.float32(1 + 10 ** (gain_db / 20)), DETECTOR.start()
    )[0].gains
    assert gains.shape == (GAINS, FRAMES)
    place = (gain_db - LOWEST_DB) / STEP_DB
    assert set(np.flatnonzero(gains.sum(axis=1))) <= {round(place) - 1, round(place), round(place) + 1}
    sides = (rest[0] + rest[1]) / 2, (rest[0] - rest[1]) / 2
    np.testing.assert_allclose(gains.sum(axis=0), sum(np.abs(side).sum(axis=0) for side in sides), rtol=1e-3)


def test_the_largest_share_within_six_decibels_is_taken_away() -> None:
    assert separation(0.7, np.zeros(GAINS)) == 0.7
    assert separation(0.7, np.eye(GAINS)[40]) == pytest.approx(-0.3)
    assert separation(0.7, np.ones(GAINS)) == pytest.approx(0.7 - ONE_GAIN_DB / STEP_DB / GAINS)


def test_highs_that_are_cut_off_count_a_little() -> None:
    assert separators_mark(0.2, 0.3) > SEPARATED > separators_mark(0.2, 0.0)
    assert separators_mark(0.1, 1.0) < SEPARATED, "they are not enough"


def test_frames_may_come_as_they_like() -> None:
    stem, rest = noise(3), noise(4)
    whole, _ = DETECTOR(stem, stem + rest, DETECTOR.start())
    state, parts = DETECTOR.start(), []
    for start in range(0, FRAMES, 8):
        some = np.s_[..., start : start + 8]
        part, state = DETECTOR(stem[some], (stem + rest)[some], state)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate([p.unexplained for p in parts]), whole.unexplained)
    np.testing.assert_array_equal(np.concatenate([p.gains for p in parts], axis=1), whole.gains)
    silence = np.zeros_like(stem)
    told, _ = DETECTOR(silence, silence, DETECTOR.start())
    assert not told.gains.any()
    assert not told.unexplained.any()
