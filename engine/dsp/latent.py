"""The lossless latent: mid/side, magnitude compression, bands, and a semi-orthogonal map to a fixed number of channels.

A band of W bins fills 16 slots, so every bin is repeated 16 / W times and divided by the root of that number: the map
is semi-orthogonal (its adjoint is its exact inverse), slot j means the same relative frequency in every band, and a
gain on a slot is a gain on a bin. A Karhunen-Loeve rotation inside the bands was measured and left out
(docs/experiments.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import OptionError

SLOTS = 16


@dataclass(frozen=True)
class BandLayout:
    """Widths in bins of runs of equal bands, low to high: ((count, width), ...)."""

    runs: tuple[tuple[int, int], ...] = ((16, 4), (16, 8), (52, 16))

    def __post_init__(self) -> None:
        for count, width in self.runs:
            if count < 1 or width < 1 or SLOTS % width:
                raise OptionError(f"band run (count={count}, width={width}): the width must divide {SLOTS}")

    @property
    def bands(self) -> int:
        """K, the number of bands."""
        return sum(count for count, _ in self.runs)

    @property
    def bins(self) -> int:
        """F, the number of bins that the bands cover."""
        return sum(count * width for count, width in self.runs)

    @cached_property
    def widths(self) -> np.ndarray:
        """Bins in each band (K,)."""
        return np.concatenate([np.full(count, width) for count, width in self.runs])

    @cached_property
    def starts(self) -> np.ndarray:
        """The first bin of each band (K,)."""
        return np.concatenate([[0], np.cumsum(self.widths)[:-1]])

    @cached_property
    def slot_bins(self) -> np.ndarray:
        """The bin that each slot shows (K, 16)."""
        return self.starts[:, None] + np.arange(SLOTS)[None, :] * self.widths[:, None] // SLOTS

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over the bins of each band: (..., F, N) to (..., K, N)."""
        return np.add.reduceat(values, self.starts, axis=-2)


@dataclass(frozen=True)
class Latent:
    """Packed stereo spectrum (B, 2, F, N) to latent (B, 64, K, N) and back, exactly.

    Channels: re of (mid slots, side slots), then im of the same. `scale` (K,) brings each band to unit deviation.
    """

    layout: BandLayout = field(default_factory=BandLayout)
    scale: np.ndarray | None = None
    exponent: float = 0.5

    def __post_init__(self) -> None:
        if not 0.1 <= self.exponent <= 1.0:
            raise OptionError(
                f"exponent={self.exponent} is outside 0.1..1, so small magnitudes would drown in rounding"
            )
        scale = np.ones(self.layout.bands, np.float32) if self.scale is None else np.asarray(self.scale, np.float32)
        if scale.shape != (self.layout.bands,) or not np.all(scale > 0):
            raise OptionError(f"scale of shape {scale.shape} must be {self.layout.bands} positive numbers, one a band")
        object.__setattr__(self, "scale", scale)

    @property
    def channels(self) -> int:
        """D, the channels of the latent: re and im of mid and side slots."""
        return 4 * SLOTS

    @cached_property
    def _gain(self) -> np.ndarray:
        assert self.scale is not None
        return (self.scale * np.sqrt(self.layout.widths / SLOTS)).astype(np.float32)

    def encode(self, spectrum: np.ndarray) -> np.ndarray:
        """Packed left/right spectrum (B, 2, F, N) complex to latent (B, 64, K, N) float32."""
        left, right = spectrum[:, 0], spectrum[:, 1]
        both = np.stack([0.5 * (left + right), 0.5 * (left - right)], axis=1)
        slots = compress(both, self.exponent)[:, :, self.layout.slot_bins]
        slots = slots * self._gain[:, None, None]
        batch, _, bands, _, frames = slots.shape
        packed = slots.transpose(0, 1, 3, 2, 4).reshape(batch, 2 * SLOTS, bands, frames)
        return np.concatenate([packed.real, packed.imag], axis=1, dtype=np.float32)

    def decode(self, latent: np.ndarray) -> np.ndarray:
        """Latent (B, 64, K, N) to packed left/right spectrum (B, 2, F, N) complex64."""
        batch, _, bands, frames = latent.shape
        packed = latent[:, : 2 * SLOTS] + 1j * latent[:, 2 * SLOTS :]
        slots = packed.reshape(batch, 2, SLOTS, bands, frames).transpose(0, 1, 3, 2, 4) / self._gain[:, None, None]
        both = np.empty((batch, 2, self.layout.bins, frames), np.complex64)
        band = start = 0
        for count, width in self.layout.runs:
            run = slots[:, :, band : band + count].reshape(batch, 2, count, width, SLOTS // width, frames)
            both[:, :, start : start + count * width] = run.mean(axis=4).reshape(batch, 2, count * width, frames)
            band, start = band + count, start + count * width
        mid, side = np.moveaxis(expand(both, self.exponent), 1, 0)
        return np.stack([mid + side, mid - side], axis=1)


def compress(spectrum: np.ndarray, exponent: float) -> np.ndarray:
    """|X|^exponent with the phase of X."""
    magnitude = np.abs(spectrum)
    return spectrum * np.power(np.maximum(magnitude, np.float32(1e-20)), np.float32(exponent - 1.0))


def expand(compressed: np.ndarray, exponent: float) -> np.ndarray:
    """The inverse of `compress`."""
    magnitude = np.abs(compressed)
    return compressed * np.power(np.maximum(magnitude, np.float32(1e-20)), np.float32(1.0 / exponent - 1.0))
