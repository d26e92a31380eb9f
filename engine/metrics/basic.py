"""Measures of a stem against the true one. Audio is (C, T); all channels count together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..dsp.stft import Stft, whole_stft

FLOOR_DB = -80.0
#: A pause: blocks of the reference below this level, relative to its mean. There must be this many of them.
PAUSE_DB, PAUSE_SAMPLES, PAUSES = -60.0, 1024, 4
LOWEST_PAUSE_DB = -100.0


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., SDR - half-baked or well done?, 2019).

    inf if the estimate is a scaled copy of the reference; nan if the reference is silent.
    """
    x, s = _both(estimate, reference)
    power = float(np.sum(s * s))
    if power == 0.0:
        return float("nan")
    target = (float(np.sum(x * s)) / power) * s
    return _ratio_db(target, x - target)


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-distortion ratio in dB, 10 log10(|s|^2 / |s - x|^2); nan if the reference is silent."""
    x, s = _both(estimate, reference)
    return _ratio_db(s, x - s) if s.any() else float("nan")


def log_spectral_distance(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Log-spectral distance in dB: root mean square over frequency of the difference of the log power spectra, mean
    over frames and channels (Gray and Markel, Distance measures for speech processing, 1976).

    Frames of 2048 samples, hop 512. Both spectra are floored at 80 dB below the loudest bin of the reference, so that
    inaudible differences do not count; frames of the reference that lie wholly below the floor are skipped. nan if no
    frame is left.
    """
    x, s = _both(estimate, reference)
    stft = Stft()
    spectra = [np.abs(whole_stft(stft, audio.astype(np.float32))).astype(np.float64) ** 2 for audio in (x, s)]
    floor = spectra[1].max() * 10 ** (FLOOR_DB / 10)
    if floor == 0.0:
        return float("nan")
    sounding = (spectra[1] > floor).any(axis=1)
    logs = [10 * np.log10(np.maximum(spectrum, floor)) for spectrum in spectra]
    distance = np.sqrt(np.mean((logs[0] - logs[1]) ** 2, axis=1))
    return float(distance[sounding].mean())


def pause_level(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Level in dB of the estimate where the reference pauses, relative to the reference's mean level, and -100 at
    least; nan if it has no pauses."""
    x, s = _both(estimate, reference)
    blocks = s.shape[1] // PAUSE_SAMPLES
    powers = [np.square(a[:, : blocks * PAUSE_SAMPLES].reshape(len(a), blocks, -1)).mean(axis=(0, 2)) for a in (x, s)]
    mean = float(np.square(s).mean()) if s.size else 0.0
    pauses = powers[1] < 10 ** (PAUSE_DB / 10) * mean
    if np.count_nonzero(pauses) < PAUSES:
        return float("nan")
    return max(LOWEST_PAUSE_DB, 10 * float(np.log10(max(float(powers[0][pauses].mean()), 1e-30) / mean)))


def windowed(
    measure: Callable[[np.ndarray, np.ndarray], float], estimate: np.ndarray, reference: np.ndarray, window_samples: int
) -> np.ndarray:
    """The measure over consecutive windows, without those where the reference is 50 dB below its own mean level."""
    x, s = _both(estimate, reference)
    quiet = 1e-5 * float(np.mean(s * s))
    starts = range(0, max(1, s.shape[1] - window_samples + 1), window_samples)
    windows = [slice(start, start + window_samples) for start in starts]
    return np.array([measure(x[:, w], s[:, w]) for w in windows if float(np.mean(s[:, w] ** 2)) > quiet])


def _both(estimate: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, s = (np.atleast_2d(np.asarray(audio, np.float64)) for audio in (estimate, reference))
    if x.shape != s.shape:
        raise ValueError(f"estimate has shape {x.shape}, reference has shape {s.shape}: the shapes must be equal")
    return x, s


def _ratio_db(signal: np.ndarray, error: np.ndarray) -> float:
    noise = float(np.sum(error * error))
    return float("inf") if noise == 0.0 else 10 * float(np.log10(max(float(np.sum(signal * signal)), 1e-30) / noise))
