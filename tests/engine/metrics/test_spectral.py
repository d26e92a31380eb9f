"""The spectral measures, on cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from models import sound
from stemprover.engine.metrics import spectral as sm

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((2, 3 * 44100))
AGREEMENTS = (sm.phase_agreement, sm.frequency_agreement, sm.delay_agreement)


def rotated(audio: np.ndarray, angle: float) -> np.ndarray:
    """The signal with all phases rotated by one angle (Hilbert transform)."""
    spectrum = np.fft.rfft(audio)
    spectrum[:, 1:-1] *= np.exp(1j * angle)
    return np.fft.irfft(spectrum, audio.shape[1])


def test_equal_signals_agree_and_have_no_distance() -> None:
    x = sound(2.0)
    assert sm.multi_resolution_distance(x, x) == 0.0
    assert sm.band_response_error_db(x, x) == 0.0
    assert sm.onset_error(x, x) == 0.0
    assert sm.kurtosis_ratio(x, x) == 0.0
    assert sm.channel_errors(x, x) == pytest.approx((0.0, 0.0), abs=1e-9)
    for agreement in AGREEMENTS:
        assert agreement(x, x) == pytest.approx(1.0)


def test_unrelated_signals_have_no_phase_agreement() -> None:
    other = np.random.default_rng(1).standard_normal(NOISE.shape)
    assert abs(sm.phase_agreement(other, NOISE)) < 0.02
    # Overlapping frames share samples, and neighbouring bins share main lobes: the window itself causes some agreement.
    for agreement in AGREEMENTS[1:]:
        assert agreement(other, NOISE) < 0.7


def test_rotating_all_phases_changes_the_phase_agreement_only() -> None:
    x = rotated(NOISE, math.pi / 3)
    assert sm.phase_agreement(x, NOISE) == pytest.approx(0.5, abs=0.01)
    assert sm.frequency_agreement(x, NOISE) == pytest.approx(1.0, abs=0.01)
    assert sm.delay_agreement(x, NOISE) == pytest.approx(1.0, abs=0.01)


def test_level_errors_equal_the_level_differences() -> None:
    assert sm.band_response_error_db(NOISE * 2.0, NOISE) == pytest.approx(20 * math.log10(2.0))
    quieter = NOISE * np.array([[1.0], [0.5]])
    level, phase = sm.channel_errors(quieter, NOISE) or (0.0, 0.0)
    assert level == pytest.approx(20 * math.log10(2.0), abs=0.01)
    assert phase == pytest.approx(0.0, abs=1e-6)


def test_rotating_one_channel_is_a_channel_phase_error() -> None:
    mono = np.repeat(NOISE[:1], 2, axis=0)
    apart = np.concatenate([mono[:1], rotated(mono[1:], 0.7)])
    assert (sm.channel_errors(apart, mono) or (0, 0))[1] == pytest.approx(0.7, abs=0.02)
    assert sm.channel_errors(mono[:1], mono[:1]) is None


def test_a_missing_attack_is_an_onset_error() -> None:
    clicks = np.zeros((1, 44100))
    clicks[0, 5000::10000] = 1.0
    missing = clicks.copy()
    missing[0, 25000] = 0.0
    assert sm.onset_error(missing, clicks) == pytest.approx(0.25, abs=0.02)


def test_spectral_flatness_of_noise_and_of_a_tone() -> None:
    # For a chi-square variable with four degrees of freedom (two channels): e^{psi(2)} / 2, with psi(2) = 1 - 0.5772.
    assert sm.spectral_flatness_db(NOISE) == pytest.approx(10 * math.log10(math.exp(1 - 0.57722) / 2), abs=0.1)
    tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)[None]
    assert sm.spectral_flatness_db(tone) < -40.0


def test_isolated_bursts_raise_the_kurtosis_ratio() -> None:
    gated = NOISE * (np.random.default_rng(2).random(NOISE.shape[1]) < 0.1)
    blocks = np.repeat(np.random.default_rng(3).random(NOISE.shape[1] // 4410) < 0.1, 4410)
    assert sm.kurtosis_ratio(NOISE * blocks, NOISE) > 1.0
    assert sm.kurtosis_ratio(gated, NOISE) < 0.5, "random single samples are still noise"


def test_silence_gives_nan() -> None:
    silence = np.zeros((2, 9000))
    assert math.isnan(sm.multi_resolution_distance(NOISE[:, :9000], silence))
    assert math.isnan(sm.band_response_error_db(NOISE[:, :9000], silence))
    assert math.isnan(sm.onset_error(NOISE[:, :9000], silence))
    assert math.isnan(sm.spectral_flatness_db(silence))
    assert math.isnan(sm.kurtosis_ratio(silence, silence))
    assert math.isnan(sm.phase_agreement(silence, silence))
    assert all(math.isnan(value) for value in sm.channel_errors(silence, silence) or ())


def test_the_worst_band_is_the_one_with_the_phase_error() -> None:
    spectrum = np.fft.rfft(NOISE)
    hertz = np.fft.rfftfreq(NOISE.shape[1], 1 / 44100)
    spectrum[:, (hertz > 2000) & (hertz < 6000)] *= np.exp(2j)
    part = np.fft.irfft(spectrum, NOISE.shape[1])
    by_band = sm.band_phase_agreement(part, NOISE)
    middle = 0.5 * (sm.PerceptualBands().edges_hz[1:] + sm.PerceptualBands().edges_hz[:-1])
    inside, outside = (middle > 2500) & (middle < 5500), (middle < 1500) | (middle > 7000)
    assert by_band[inside] == pytest.approx(math.cos(2.0), abs=0.03)
    assert by_band[outside] == pytest.approx(1.0, abs=0.01)
    assert sm.worst_band_phase(part, NOISE) == pytest.approx(math.cos(2.0), abs=0.03)
    assert math.isnan(sm.worst_band_phase(NOISE, np.zeros_like(NOISE)))


def test_rotating_one_channel_alone_lowers_the_agreement_between_channels() -> None:
    both = rotated(NOISE, 0.9)
    one = np.stack([both[0], NOISE[1]])
    assert sm.band_channel_agreement(both, NOISE)[1:] == pytest.approx(1.0, abs=1e-3)  # edge effects in the lowest band
    assert sm.band_channel_agreement(one, NOISE)[1:] == pytest.approx(math.cos(0.9), abs=0.02)
    assert np.isnan(sm.band_channel_agreement(NOISE, np.zeros_like(NOISE))).all()


def test_band_coherence_is_high_if_all_bands_rotate_together() -> None:
    assert sm.band_coherence(rotated(NOISE, 1.0), NOISE) == pytest.approx(1.0, abs=0.01)
    spectrum = np.fft.rfft(NOISE)
    bands = sm.PerceptualBands()
    hertz = np.fft.rfftfreq(NOISE.shape[1], 1 / 44100)
    band = np.searchsorted(bands.edges_hz, hertz)
    apart = np.fft.irfft(spectrum * np.exp(1j * np.pi * (band % 2)), NOISE.shape[1])
    assert sm.band_coherence(apart, NOISE) < -0.8, "every second band has inverted polarity"
