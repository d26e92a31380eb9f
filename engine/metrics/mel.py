"""Bleedless and fullness, the measures of the separation community: how much a stem has too much, and too little.

As in the Music-Source-Separation-Training project: mel spectrograms of both in dB, floored at 80 dB below their loudest
cell; the mean excess where the stem is louder than the true one, and the mean deficit where it is softer. A single dB
of gain would move them from 100 to 50, so the stem is first brought to the true one's level.
"""

from __future__ import annotations

from functools import cache

import numpy as np

N_FFT, HOP, MELS, RANGE_DB = 4096, 1024, 512, 80.0
_LOWEST = 1e-10


def bleedless(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """100 / (1 + mean excess in dB): 100 if nothing is louder than in the reference. nan if that is silent."""
    excess, _ = _excess_and_deficit(estimate, reference, sample_rate)
    return 100.0 / (1.0 + excess)


def fullness(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """100 / (1 + mean deficit in dB): 100 if nothing is softer than in the reference. nan if that is silent."""
    _, deficit = _excess_and_deficit(estimate, reference, sample_rate)
    return 100.0 / (1.0 + deficit)


@cache
def mel_filters(sample_rate: int) -> np.ndarray:
    """Triangles of unit area in Hz (MELS, N_FFT / 2 + 1), evenly spaced from 0 to half the sample rate on Slaney's mel
    scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above."""
    per_mel, knee, step = 200.0 / 3.0, 15.0, np.log(6.4) / 27.0
    top = knee + np.log(sample_rate / 2000.0) / step if sample_rate > 2000 else sample_rate / 2 / per_mel
    mels = np.linspace(0.0, top, MELS + 2)
    edges = np.where(mels < knee, per_mel * mels, 1000.0 * np.exp(step * (mels - knee)))
    hz = np.fft.rfftfreq(N_FFT, 1.0 / sample_rate)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    found: np.ndarray = np.maximum(0.0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))
    return found * (2.0 / (high - low))


def _excess_and_deficit(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """Mean of what is too loud and of what is too soft, in dB; nan if the reference is silent."""
    if not reference.any():
        return float("nan"), float("nan")
    levels = [_mel_db(audio, sample_rate) for audio in (_at_level_of(estimate, reference), reference)]
    difference = levels[0] - levels[1]
    over, under = difference[difference > 0.0], -difference[difference < 0.0]
    return (float(over.mean()) if over.size else 0.0), (float(under.mean()) if under.size else 0.0)


def _at_level_of(estimate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The estimate, scaled so that it holds the reference at its own level; as it is if it does not hold it."""
    x, s = np.asarray(estimate, np.float64), np.asarray(reference, np.float64)
    gain = float(np.sum(x * s)) / float(np.sum(s * s))
    return x / gain if gain > 1e-3 else x


def _mel_db(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mel spectrogram (C, MELS, N) of (C, T) in dB, centred frames, floored at RANGE_DB below its loudest cell."""
    padded = np.pad(np.asarray(audio, np.float64), ((0, 0), (N_FFT // 2, N_FFT // 2)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT, axis=-1)[:, ::HOP]
    spectrum = np.abs(np.fft.rfft(frames * window, axis=-1)).swapaxes(-1, -2)
    found: np.ndarray = 20 * np.log10(np.maximum(mel_filters(sample_rate) @ spectrum, _LOWEST))
    return np.maximum(found, found.max() - RANGE_DB)
