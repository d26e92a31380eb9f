"""Tests for the detection of stems made by mask-based separators."""

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
    mask_score,
    separation_score,
)

FRAMES = 200
DETECTOR = SeparationDetector(44100)


def noise(seed: int) -> np.ndarray:
    """Spectra (2, F, N) that are sparse like music: the levels of their bins differ by up to 60 dB."""
    rng = np.random.default_rng(seed)
    shape = (2, DETECTOR.layout.bins, FRAMES)
    spectra = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * 10 ** rng.uniform(-3, 0, shape[1:])
    return spectra.astype(np.complex64)


def score(stem: np.ndarray, mix: np.ndarray) -> float:
    evidence = DETECTOR(stem, mix, DETECTOR.start())[0]
    return separation_score(float(evidence.unexplained.mean()), evidence.gains.sum(axis=1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), gain_db=st.floats(-40.0, -7.0))
def test_masked_stems_are_told_from_true_stems_and_from_bleed(seed: int, gain_db: float) -> None:
    stem, residual = noise(seed), noise(seed + 1000)
    mix = stem + residual
    leaked = score(stem + np.float32(10 ** (gain_db / 20)) * residual, mix)
    powers = [np.square(np.abs(x)).sum(axis=0) for x in (stem, residual)]
    assert score(mix * powers[0] / (powers[0] + powers[1]), mix) > SEPARATED > max(leaked, score(stem, mix))


@pytest.mark.parametrize("gain_db", [-60.0, -20.0, -8.0])
def test_the_gain_histogram_counts_each_gain_weighted_by_the_residuals_amplitude(gain_db: float) -> None:
    residual = noise(1)
    gain = 10 ** (gain_db / 20)
    gains = DETECTOR(residual * np.float32(gain), residual * np.float32(1 + gain), DETECTOR.start())[0].gains
    assert gains.shape == (GAINS, FRAMES)
    step = round((gain_db - LOWEST_DB) / STEP_DB)
    assert set(np.flatnonzero(gains.sum(axis=1))) <= {step - 1, step, step + 1}
    sides = (residual[0] + residual[1]) / 2, (residual[0] - residual[1]) / 2
    np.testing.assert_allclose(gains.sum(axis=0), sum(np.abs(side).sum(axis=0) for side in sides), rtol=1e-3)


def test_gains_within_six_decibels_lower_the_score() -> None:
    assert separation_score(0.7, np.zeros(GAINS)) == 0.7
    assert separation_score(0.7, np.eye(GAINS)[40]) == pytest.approx(-0.3)
    assert separation_score(0.7, np.ones(GAINS)) == pytest.approx(0.7 - ONE_GAIN_DB / STEP_DB / GAINS)


def test_dull_highs_add_a_little_to_the_score() -> None:
    assert mask_score(0.2, 0.3) > SEPARATED > mask_score(0.2, 0.0)
    assert mask_score(0.1, 1.0) < SEPARATED, "dull highs alone are not enough"


def test_any_split_into_frames_gives_the_same_evidence() -> None:
    stem, residual = noise(3), noise(4)
    whole, _ = DETECTOR(stem, stem + residual, DETECTOR.start())
    state, parts = DETECTOR.start(), []
    for start in range(0, FRAMES, 8):
        frames = np.s_[..., start : start + 8]
        part, state = DETECTOR(stem[frames], (stem + residual)[frames], state)
        parts.append(part)
    np.testing.assert_array_equal(np.concatenate([p.unexplained for p in parts]), whole.unexplained)
    np.testing.assert_array_equal(np.concatenate([p.gains for p in parts], axis=1), whole.gains)
    silence = np.zeros_like(stem)
    evidence, _ = DETECTOR(silence, silence, DETECTOR.start())
    assert not evidence.gains.any()
    assert not evidence.unexplained.any()
