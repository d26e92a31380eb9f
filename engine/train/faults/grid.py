"""Time-frequency grids of any kind: window, hop and offset drawn at random, so that no fault lies on the model's own
grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...constants import MODEL_RATE

SIZES = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384)


@dataclass(frozen=True)
class Grid:
    """A short-time Fourier transform: window (size,), hop and offset in samples."""

    window: np.ndarray
    hop: int
    offset: int

    @classmethod
    def draw(cls, rng: np.random.Generator, smallest: int = 512, largest: int = 16384) -> Grid:
        """A grid at random: Hann, Hamming, Blackman or sine windows, two to eight of which overlap."""
        size = int(rng.choice([s for s in SIZES if smallest <= s <= largest]))
        phase = 2 * np.pi * (np.arange(size) + 0.5) / size
        window = (
            0.5 - 0.5 * np.cos(phase),
            0.54 - 0.46 * np.cos(phase),
            0.42 - 0.5 * np.cos(phase) + 0.08 * np.cos(2 * phase),
            np.sin(phase / 2),
        )[rng.integers(4)]
        hop = size // int(rng.choice([2, 4, 4, 4, 8] if size < 8192 else [2, 4]))
        return cls(window.astype(np.float32), hop, int(rng.integers(hop)))

    @property
    def hz(self) -> np.ndarray:
        """Frequencies of the bins (F,)."""
        return np.fft.rfftfreq(len(self.window), 1.0 / MODEL_RATE)

    def forward(self, audio: np.ndarray) -> np.ndarray:
        """Waveform (..., T) to a spectrum (..., N, F) complex64."""
        size = len(self.window)
        before = size + self.offset
        after = size + (-(audio.shape[-1] + before + size)) % self.hop
        padded = np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(before, after)])
        frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=-1)[..., :: self.hop, :]
        found: np.ndarray = np.fft.rfft(frames * self.window, axis=-1).astype(np.complex64, copy=False)
        return found

    def inverse(self, spectrum: np.ndarray, length: int) -> np.ndarray:
        """The least-squares inverse of `forward` (Griffin and Lim, 1984): (..., N, F) to (..., length) float32."""
        size, hop = len(self.window), self.hop
        frames = np.fft.irfft(spectrum, size, axis=-1).astype(np.float32) * self.window
        count, overlap = frames.shape[-2], size // hop
        parts = frames.reshape(*frames.shape[:-1], overlap, hop)
        squares = np.square(self.window).reshape(overlap, hop)
        out = np.zeros((*frames.shape[:-2], count + overlap - 1, hop), np.float32)
        weight = np.full((count + overlap - 1, hop), 1e-6, np.float32)
        for part in range(overlap):
            out[..., part : part + count, :] += parts[..., part, :]
            weight[part : part + count] += squares[part]
        start = size + self.offset
        found: np.ndarray = (out / weight).reshape(*frames.shape[:-2], -1)[..., start : start + length]
        return found


def smoothed(values: np.ndarray, frames: int, bins: int) -> np.ndarray:
    """Moving averages of (..., N, F) over about so many frames and bins."""
    for axis, width in ((-2, frames), (-1, bins)):
        size = values.shape[axis]
        half = min(width // 2, (size - 1) // 2)
        if half < 1:
            continue
        rows = np.moveaxis(values, axis, 0)
        padded = np.concatenate([np.repeat(rows[:1], half + 1, axis=0), rows, np.repeat(rows[-1:], half, axis=0)])
        sums = np.cumsum(padded, axis=0, dtype=np.float64)
        values = np.moveaxis(
            ((sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)).astype(np.float32), 0, axis
        )
    return values


def curve(rng: np.random.Generator, length: int, knots: int, low: float, high: float) -> np.ndarray:
    """A smooth random curve (length,) between two values, through so many points."""
    places = np.linspace(0.0, length - 1.0, max(knots, 2))
    found: np.ndarray = np.interp(np.arange(length), places, rng.uniform(low, high, len(places))).astype(np.float32)
    return found


def filtered(audio: np.ndarray, gain_db: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """A zero-phase filter for (..., T): gains in dB at rising frequencies, interpolated over their logarithm."""
    knots = np.log(np.asarray(hz) + 1.0)
    return zero_phase(audio, lambda bins: 10 ** (np.interp(np.log(bins + 1.0), knots, gain_db) / 20))


def zero_phase(audio: np.ndarray, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A zero-phase filter for (..., T); `response` maps frequencies in Hz to gains."""
    length = audio.shape[-1]
    size = length + 4096  # room for ringing
    gain = response(np.fft.rfftfreq(size, 1.0 / MODEL_RATE))
    found: np.ndarray = np.fft.irfft(np.fft.rfft(audio, size) * gain, size)[..., :length].astype(np.float32)
    return found


def some_hz(rng: np.random.Generator, low: float, high: float) -> float:
    """A frequency, uniform over its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
