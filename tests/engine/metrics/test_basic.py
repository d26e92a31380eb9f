"""The measures on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemprover.engine.metrics.basic import log_spectral_distance, pause_level, sdr, si_sdr, windowed

RNG = np.random.default_rng(5)
TRUTH = RNG.standard_normal((2, 20000))
NOISE = RNG.standard_normal((2, 20000))


@given(st.floats(-10, 40), st.floats(0.01, 100))
def test_si_sdr_equals_the_noise_level_at_any_scale(level_db: float, scale: float) -> None:
    error = NOISE - np.sum(NOISE * TRUTH) / np.sum(TRUTH**2) * TRUTH
    error *= np.linalg.norm(TRUTH) / np.linalg.norm(error) * 10 ** (-level_db / 20)
    assert si_sdr(scale * (TRUTH + error), TRUTH) == pytest.approx(level_db, abs=1e-6)


def test_sdr_counts_a_wrong_gain_and_si_sdr_does_not() -> None:
    assert sdr(1.1 * TRUTH, TRUTH) == pytest.approx(20.0, abs=1e-9)
    assert si_sdr(1.1 * TRUTH, TRUTH) > 200
    assert sdr(TRUTH, TRUTH) == float("inf")
    assert np.isnan(si_sdr(TRUTH, 0 * TRUTH))


def test_half_the_amplitude_is_a_log_spectral_distance_of_six_db() -> None:
    assert log_spectral_distance(0.5 * TRUTH, TRUTH) == pytest.approx(6.02, abs=0.15)
    assert log_spectral_distance(TRUTH, TRUTH) == 0.0
    assert np.isnan(log_spectral_distance(TRUTH, 0 * TRUTH))


def test_log_spectral_distance_ignores_differences_below_the_floor() -> None:
    assert log_spectral_distance(TRUTH + 1e-6 * NOISE, TRUTH) < 1e-3


@given(st.floats(-80, 0), st.floats(0.01, 100))
def test_the_level_in_pauses_is_that_of_what_sounds_there(level_db: float, scale: float) -> None:
    truth = TRUTH.copy()
    truth[:, 5000:12000] *= 1e-5
    noise = np.where(np.arange(20000) >= 5000, 10 ** (level_db / 20) * np.sqrt(np.square(truth).mean()), 0.0)
    assert pause_level(scale * (truth + noise), scale * truth) == pytest.approx(level_db, abs=0.1)
    assert pause_level(truth * (truth > 1e-3), truth) == -100.0
    assert np.isnan(pause_level(TRUTH, TRUTH)), "no pauses"


def test_silent_windows_are_skipped() -> None:
    truth = TRUTH.copy()
    truth[:, 5000:10000] = 0.0
    assert windowed(si_sdr, truth + 0.1 * NOISE, truth, 5000) == pytest.approx([20.0] * 3, abs=0.5)


def test_different_shapes_raise_an_error() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        si_sdr(TRUTH, TRUTH[:, :-1])
