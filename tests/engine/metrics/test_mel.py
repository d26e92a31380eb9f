"""Bleedless and fullness, against their definition written out cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.metrics.mel import HOP, MELS, N_FFT, bleedless, fullness, mel_filters

RATE = 44100


def noise(seed: int, level: float = 0.1, seconds: float = 1.0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal((2, int(seconds * RATE)))


def slaney_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def written_out(estimate: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """The definition, one filter and one frame at a time, for signals of one level."""
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    edges = [slaney_hz(top * i / (MELS + 1)) for i in range(MELS + 2)]
    hz = [k * RATE / N_FFT for k in range(N_FFT // 2 + 1)]
    levels = []
    for audio in (estimate, reference):
        padded = np.pad(audio, ((0, 0), (N_FFT // 2, N_FFT // 2)))
        cells = []
        for channel in padded:
            for start in range(0, len(channel) - N_FFT + 1, HOP):
                magnitude = np.abs(np.fft.rfft(channel[start : start + N_FFT] * np.hanning(N_FFT + 1)[:-1]))
                for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
                    shape = np.interp(hz, [low, middle, high], [0, 1, 0], left=0, right=0)
                    cells.append(2 / (high - low) * float(shape @ magnitude))
        db = 20 * np.log10(np.maximum(cells, 1e-10))
        levels.append(np.maximum(db, db.max() - 80))
    difference = levels[0] - levels[1]
    over, under = difference[difference > 0], -difference[difference < 0]
    return 100 / (1 + over.mean()), 100 / (1 + under.mean())


def test_the_values_are_those_of_the_definition() -> None:
    truth = noise(1, seconds=0.2)
    estimate = truth + noise(2, 0.03, 0.2)
    estimate *= np.sum(truth**2) / np.sum(estimate * truth)
    expected = written_out(estimate, truth)
    assert bleedless(estimate, truth, RATE) == pytest.approx(expected[0], rel=1e-6)
    assert fullness(estimate, truth, RATE) == pytest.approx(expected[1], rel=1e-6)


def test_each_filter_has_unit_area() -> None:
    area = mel_filters(RATE).sum(axis=1) * RATE / N_FFT
    assert area[300:] == pytest.approx(1.0, abs=0.05), "wider than a few bins"
    assert area.min() > 0.0


@settings(max_examples=10, deadline=None)
@given(gain=st.floats(0.01, 100.0))
def test_a_gain_alone_costs_nothing(gain: float) -> None:
    truth = noise(1, seconds=0.3)
    assert bleedless(gain * truth, truth, RATE) == pytest.approx(100.0, abs=1e-6)
    assert fullness(gain * truth, truth, RATE) == pytest.approx(100.0, abs=1e-6)


def test_bleed_costs_bleedless_and_a_low_pass_fullness() -> None:
    spectrum = np.fft.rfft(noise(1)) / (1 + np.arange(RATE // 2 + 1) / 200)
    truth = np.fft.irfft(spectrum, RATE)
    truth[:, RATE // 2 :] *= 0.01
    spectrum[:, 8000:] = 0.0
    dull = np.fft.irfft(spectrum, RATE)
    dull[:, RATE // 2 :] *= 0.01
    bled = truth + 0.0005 * noise(2)
    assert bleedless(bled, truth, RATE) < 50.0 < fullness(bled, truth, RATE)
    assert fullness(dull, truth, RATE) < 25.0 < bleedless(dull, truth, RATE)


def test_silence_has_no_value() -> None:
    assert math.isnan(bleedless(noise(1), np.zeros((2, RATE)), RATE))
    assert math.isnan(fullness(noise(1), np.zeros((2, RATE)), RATE))
    assert fullness(np.zeros((2, RATE)), noise(1), RATE) < 5.0
