"""Perceptual bands over the bins of the STFT, and sums over the last frames of what is measured in bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

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
    evenly, since separators lose the highs, which are few bandwidths wide."""
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


LONGEST = 128
WIDTHS = tuple(2**i for i in range(LONGEST.bit_length()))  # frames of each sum, made of two of the width before


def no_sums(shape: tuple[int, ...], longest: int = LONGEST) -> tuple[np.ndarray, ...]:
    """State of `moving_sums` before the first frame, for values (*shape, N) and sums of up to `longest` frames, a power
    of two."""
    return tuple(np.zeros((*shape, 2**i), np.float32) for i in range(longest.bit_length() - 1))


def moving_sums(
    values: np.ndarray, rows: Sequence[np.ndarray], before: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Sums of values (A, J, K, N) over the last 2^i frames for the rows rows[i] of J: (A, J, K, N), and the next state.
    Each width adds two sums of half that width, of which the latest are kept: only new frames cost work."""
    count = values.shape[-1]
    out = np.empty_like(values)
    total, after = values, []
    for wanted, kept in zip_longest(rows, before):
        if len(wanted):
            out[:, wanted] = total[:, wanted]
        if kept is not None:
            joined = np.concatenate([kept, total], axis=-1)
            after.append(joined[..., count:])
            total = total + joined[..., :count]
    return out, tuple(after)


def longest_sums(values: np.ndarray, before: tuple[np.ndarray, ...]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """`moving_sums` of all rows over as many frames as the state was made for."""
    return moving_sums(values, [np.arange(0)] * len(before) + [np.arange(values.shape[1])], before)
