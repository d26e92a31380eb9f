"""Perceptual bands over the bins of the STFT, and how much each part of the spectrum counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .latent import BandLayout


def erb_rate(frequency_hz: np.ndarray | float) -> np.ndarray:
    """Equivalent rectangular bandwidths below a frequency (Glasberg and Moore, Derivation of auditory filter shapes
    from notched-noise data, 1990)."""
    return 21.4 * np.log10(1.0 + 0.00437 * np.asarray(frequency_hz, np.float64))


def erb_frequency(rate: np.ndarray) -> np.ndarray:
    """The inverse of `erb_rate`, in Hz."""
    return (10 ** (np.asarray(rate, np.float64) / 21.4) - 1.0) / 0.00437


def band_importance(layout: BandLayout, sample_rate: int = 44100) -> np.ndarray:
    """Weight of each band of the latent (K,), mean 1: half by its width in equivalent rectangular bandwidths, half
    evenly, since the highs, few filters wide, are what separators lose altogether."""
    starts = np.concatenate([[0], np.cumsum(layout.widths)]) * (sample_rate / 2 / layout.bins)
    weights = np.diff(erb_rate(starts))
    return (0.5 + 0.5 * weights / weights.mean()).astype(np.float32)


@dataclass(frozen=True)
class PerceptualBands:
    """Bands of equal width on the ERB scale, at least two bins wide, over a packed spectrum of `bins` bins; bin 0,
    where DC and Nyquist are, is left out."""

    count: int = 32
    bins: int = 1024
    sample_rate: int = 44100

    @cached_property
    def starts(self) -> np.ndarray:
        """First bin of each band (K,); each ends where the next starts, the last at the end."""
        top = erb_rate(self.sample_rate / 2)
        edges = erb_frequency(np.linspace(0.0, top, self.count + 1)) / (self.sample_rate / 2) * self.bins
        starts = [1]
        for edge in np.round(edges[1:-1]).astype(int):
            if edge - starts[-1] >= 2:
                starts.append(int(edge))
        return np.array(starts)

    @cached_property
    def widths(self) -> np.ndarray:
        """Bins in each band (K,)."""
        return np.diff(np.append(self.starts, self.bins))

    @cached_property
    def edges_hz(self) -> np.ndarray:
        """Edges of the bands (K + 1,)."""
        return np.append(self.starts, self.bins) * (self.sample_rate / 2 / self.bins)

    def __len__(self) -> int:
        return len(self.starts)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over the bins of each band: (..., F, N) to (..., K, N)."""
        return np.add.reduceat(values, self.starts, axis=-2)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Each band's value to its bins: (..., K, N) to (..., F - 1, N), without bin 0."""
        return np.repeat(values, self.widths, axis=-2)
