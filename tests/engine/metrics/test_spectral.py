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


def turned(audio: np.ndarray, angle: float) -> np.ndarray:
    """All phases turned by one angle (a Hilbert rotation)."""
    spectrum = np.fft.rfft(audio)
    spectrum[:, 1:-1] *= np.exp(1j * angle)
    return np.fft.irfft(spectrum, audio.shape[1])


def test_equals_agree_and_cost_nothing() -> None:
    x = sound(2.0)
    assert sm.multi_resolution_distance(x, x) == 0.0
    assert sm.band_response_error_db(x, x) == 0.0
    assert sm.onset_error(x, x) == 0.0
    assert sm.kurtosis_ratio(x, x) == 0.0
    assert sm.channel_errors(x, x) == pytest.approx((0.0, 0.0), abs=1e-9)
    for agreement in AGREEMENTS:
        assert agreement(x, x) == pytest.approx(1.0)


def test_strangers_have_no_phase_in_common() -> None:
    other = np.random.default_rng(1).standard_normal(NOISE.shape)
    assert abs(sm.phase_agreement(other, NOISE)) < 0.02
    # Overlapping frames share samples, and so do the main lobes of neighbouring bins: a part is the window's own doing.
    for agreement in AGREEMENTS[1:]:
        assert agreement(other, NOISE) < 0.7


def test_a_turn_of_all_phases_is_its_cosine_and_leaves_frequency_and_delay() -> None:
    x = turned(NOISE, math.pi / 3)
    assert sm.phase_agreement(x, NOISE) == pytest.approx(0.5, abs=0.01)
    assert sm.frequency_agreement(x, NOISE) == pytest.approx(1.0, abs=0.01)
    assert sm.delay_agreement(x, NOISE) == pytest.approx(1.0, abs=0.01)


def test_six_decibels_are_six_decibels() -> None:
    assert sm.band_response_error_db(NOISE * 2.0, NOISE) == pytest.approx(20 * math.log10(2.0))
    quieter = NOISE * np.array([[1.0], [0.5]])
    level, phase = sm.channel_errors(quieter, NOISE) or (0.0, 0.0)
    assert level == pytest.approx(20 * math.log10(2.0), abs=0.01)
    assert phase == pytest.approx(0.0, abs=1e-6)


def test_one_channel_turned_is_a_phase_error() -> None:
    mono = np.repeat(NOISE[:1], 2, axis=0)
    apart = np.concatenate([mono[:1], turned(mono[1:], 0.7)])
    assert (sm.channel_errors(apart, mono) or (0, 0))[1] == pytest.approx(0.7, abs=0.02)
    assert sm.channel_errors(mono[:1], mono[:1]) is None


def test_a_lost_attack_is_an_onset_error() -> None:
    clicks = np.zeros((1, 44100))
    clicks[0, 5000::10000] = 1.0
    missing = clicks.copy()
    missing[0, 25000] = 0.0
    assert sm.onset_error(missing, clicks) == pytest.approx(0.25, abs=0.02)


def test_flatness_of_noise_and_of_a_tone() -> None:
    # Of a chi-square variable of four degrees (two channels), e^{psi(2)} / 2: -1.16 dB; psi(2) = 1 - 0.5772.
    assert sm.spectral_flatness_db(NOISE) == pytest.approx(10 * math.log10(math.exp(1 - 0.57722) / 2), abs=0.1)
    tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)[None]
    assert sm.spectral_flatness_db(tone) < -40.0


def test_islands_raise_the_kurtosis() -> None:
    gated = NOISE * (np.random.default_rng(2).random(NOISE.shape[1]) < 0.1)
    blocks = np.repeat(np.random.default_rng(3).random(NOISE.shape[1] // 4410) < 0.1, 4410)
    assert sm.kurtosis_ratio(NOISE * blocks, NOISE) > 1.0
    assert sm.kurtosis_ratio(gated, NOISE) < 0.5, "random single samples are noise again"


def test_silence_is_nan() -> None:
    silence = np.zeros((2, 9000))
    assert math.isnan(sm.multi_resolution_distance(NOISE[:, :9000], silence))
    assert math.isnan(sm.band_response_error_db(NOISE[:, :9000], silence))
    assert math.isnan(sm.onset_error(NOISE[:, :9000], silence))
    assert math.isnan(sm.spectral_flatness_db(silence))
    assert math.isnan(sm.kurtosis_ratio(silence, silence))
    assert math.isnan(sm.phase_agreement(silence, silence))
    assert all(math.isnan(value) for value in sm.channel_errors(silence, silence) or ())


def test_the_worst_band_is_found() -> None:
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


def test_the_phase_between_channels_is_lost_where_one_turns_alone() -> None:
    both = turned(NOISE, 0.9)
    one = np.stack([both[0], NOISE[1]])
    assert sm.band_channel_agreement(both, NOISE)[1:] == pytest.approx(1.0, abs=1e-3)  # the lowest has edges
    assert sm.band_channel_agreement(one, NOISE)[1:] == pytest.approx(math.cos(0.9), abs=0.02)
    assert np.isnan(sm.band_channel_agreement(NOISE, np.zeros_like(NOISE))).all()


def test_bands_that_turn_together_belong_together() -> None:
    assert sm.band_coherence(turned(NOISE, 1.0), NOISE) == pytest.approx(1.0, abs=0.01)
    spectrum = np.fft.rfft(NOISE)
    bands = sm.PerceptualBands()
    hertz = np.fft.rfftfreq(NOISE.shape[1], 1 / 44100)
    band = np.searchsorted(bands.edges_hz, hertz)
    apart = np.fft.irfft(spectrum * np.exp(1j * np.pi * (band % 2)), NOISE.shape[1])
    assert sm.band_coherence(apart, NOISE) < -0.8, "every second band turned half round"
