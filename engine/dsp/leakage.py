"""Leakage: how much of the residual (mix minus stem) a stem contains at a constant gain, and the stem without it.

If a splitter, a filter or a fader let the residual through, the stem is true + g * rest, and mix minus stem is the rest
at another gain. The gain at which the residual is found in the stem is the real least-squares solution of one tap,
Re<stem, residual> / <residual, residual>, over a band and the last second and a half (Haykin, Adaptive Filter Theory,
2002, on noise cancelling with a reference). It is a candidate, not a verdict: a mask-based separator gives every stem a
part of every bin, which looks alike, and there what is subtracted would be missed. The network sees both and chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .bands import longest_sums, no_sums
from .latent import BandLayout

HIGHEST_GAIN = 1.5
_SUMS = 5
_FLOOR = np.float32(1e-9)


@dataclass(frozen=True)
class LeakageState:
    """The sums over the last frames."""

    sums: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Leakage:
    """What was measured of the residual in a stem, for mid and side.

    gain (B, 2, K, N), 0 to HIGHEST_GAIN: at which the stem contains the residual. coherence (B, 2, K, N), 0 to 1: the
    share of the stem's power in the band that this explains (squared coherence). mask_likelihood (B, N), 0 to 1: how
    far stem and residual are in phase in all bins, Re<stem, residual> / <|stem|, |residual|>. A mask gives every bin of
    the mix to both in one phase, so this is near 1 for a mask-based separator (0.65 to 0.9 for Spleeter's stems), and
    near 0 for a true stem, whatever was done to it. balance (B, K, N), 0 to 1: the stem's share of the power of both.
    """

    gain: np.ndarray
    coherence: np.ndarray
    mask_likelihood: np.ndarray
    balance: np.ndarray


@dataclass(frozen=True)
class LeakageCanceller:
    """Packed mid/side spectra of stem and residual (B, 2, F, N), frame by frame, with bands.LONGEST frames of
    memory."""

    layout: BandLayout = field(default_factory=BandLayout)

    def start(self, batch: int) -> LeakageState:
        """State before the first frame: silence."""
        return LeakageState(no_sums((batch * 2, _SUMS, self.layout.bands)))

    def measure(self, stem: np.ndarray, residual: np.ndarray, state: LeakageState) -> tuple[Leakage, LeakageState]:
        """The leakage in these frames, and the state after them.

        Gains that chance alone would give over so few frames are lowered towards 0, by the share of the coherence that
        exceeds what two unrelated signals would show.
        """
        batch, sides, _, frames = stem.shape
        shared = stem.real * residual.real + stem.imag * residual.imag
        power = [np.square(x.real) + np.square(x.imag) for x in (residual, stem)]
        sums = [self.layout.sum(x) for x in (shared, *power, np.sqrt(power[0] * power[1]))]
        values = np.stack([*sums, np.ones_like(sums[0])], axis=2).reshape(batch * sides, _SUMS, -1, frames)
        found, after = longest_sums(values, state.sums)
        cross, of_residual, of_stem, sizes, count = np.moveaxis(found.reshape(batch, sides, _SUMS, -1, frames), 2, 0)
        coherence = np.square(cross) / (of_residual * of_stem + _FLOOR * _FLOOR)
        # At an overlap of 75% two Hann frames count as one; only the real part of the error counts, half of it.
        independent = count * self.layout.widths[:, None].astype(np.float32)
        known = np.clip(1.0 - 1.0 / (independent * coherence + np.float32(1e-6)), 0.0, 1.0)
        gain = np.clip(known * cross / (of_residual + _FLOOR), 0.0, HIGHEST_GAIN)
        in_phase = _over_bands(cross) / (_over_bands(sizes) + _FLOOR)
        explained = np.clip(coherence, 0.0, 1.0) * (cross > 0.0)
        stem_power, residual_power = of_stem.sum(axis=1), of_residual.sum(axis=1)
        balance = stem_power / (stem_power + residual_power + _FLOOR)
        return Leakage(gain, explained, np.clip(in_phase, 0.0, 1.0), balance), LeakageState(after)

    def cancel(self, stem: np.ndarray, residual: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """The stem (B, 2, F, N) minus the residual at the bands' gains (B, 2, K, N)."""
        return stem - np.repeat(gain, self.layout.widths, axis=2) * residual


def mid_side(spectrum: np.ndarray) -> np.ndarray:
    """Left and right (B, 2, ...) to mid and side."""
    return np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]], axis=1) * np.float32(0.5)


def left_right(sides: np.ndarray) -> np.ndarray:
    """The inverse of `mid_side`."""
    return np.stack([sides[:, 0] + sides[:, 1], sides[:, 0] - sides[:, 1]], axis=1)


def _over_bands(values: np.ndarray) -> np.ndarray:
    """The sum of (B, 2, K, N) over sides and bands (B, N), in an order that does not depend on the number of frames."""
    batch, _, _, frames = values.shape
    rows: np.ndarray = np.ascontiguousarray(values.reshape(batch, -1, frames).transpose(0, 2, 1)).sum(axis=-1)
    return rows
