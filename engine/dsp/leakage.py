"""What of the rest of the song stands in a stem at one gain, and the stem without it.

Where a splitter, a filter or a fader let the rest through, the stem is true + g rest, and mixture minus stem is the
rest at another gain. The gain with which that stands in the stem is the real least-squares solution of one tap,
Re<stem, rest> / <rest, rest>, over a band and the last second and a half (Haykin, Adaptive Filter Theory, 2002, on
noise cancelling with a reference). It is a candidate and no verdict: a separator that masks gives every stem a part
of every bin, which looks alike, and there what is taken away would be missed. The network is shown both and chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .latent import BandLayout
from .moving_sums import longest_sums, no_sums

HIGHEST_GAIN = 1.5
_SUMS = 5
_FLOOR = np.float32(1e-9)


@dataclass(frozen=True)
class LeakState:
    """The sums over the last frames."""

    sums: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Leak:
    """What was found of the rest in a stem, mid and side.

    gain (B, 2, K, N), 0 to HIGHEST_GAIN: with which the rest stands in the stem. coherence (B, 2, K, N), 0 to 1: how
    much of the stem in the band that explains (squared coherence). masked (B, N), 0 to 1: how far stem and rest are in
    phase in all bins, Re<stem, rest> / <|stem|, |rest|>. A mask gives every bin of the mixture to both in one phase,
    so it is near 1 for a separator that masks (0.65 to 0.9 for Spleeter's stems), and near 0 for a true stem, whatever
    was done to it by itself. balance (B, K, N), 0 to 1: the stem's part of the power of both.
    """

    gain: np.ndarray
    coherence: np.ndarray
    masked: np.ndarray
    balance: np.ndarray


@dataclass(frozen=True)
class LeakCanceller:
    """Packed spectra of mid and side of stem and mixture (B, 2, F, N), frame by frame, with LONGEST frames of
    memory."""

    layout: BandLayout = field(default_factory=BandLayout)

    def start(self, batch: int) -> LeakState:
        """State before the first frame: silence."""
        return LeakState(no_sums((batch * 2, _SUMS, self.layout.bands)))

    def measure(self, stem: np.ndarray, rest: np.ndarray, state: LeakState) -> tuple[Leak, LeakState]:
        """What of the rest stands in the stem, and the state after these frames.

        Gains that chance alone would find in so few frames are lowered towards 0: by the share of the coherence that
        is above what is expected of two unrelated signals.
        """
        batch, sides, _, frames = stem.shape
        shared = stem.real * rest.real + stem.imag * rest.imag
        power = [np.square(x.real) + np.square(x.imag) for x in (rest, stem)]
        sums = [self.layout.sum(x) for x in (shared, *power, np.sqrt(power[0] * power[1]))]
        values = np.stack([*sums, np.ones_like(sums[0])], axis=2).reshape(batch * sides, _SUMS, -1, frames)
        found, after = longest_sums(values, state.sums)
        cross, of_rest, of_stem, sizes, count = np.moveaxis(found.reshape(batch, sides, _SUMS, -1, frames), 2, 0)
        coherence = np.square(cross) / (of_rest * of_stem + _FLOOR * _FLOOR)
        # At an overlap of 75% two Hann frames count as one; of the error the real part alone counts, half of it.
        independent = count * self.layout.widths[:, None].astype(np.float32)
        known = np.clip(1.0 - 1.0 / (independent * coherence + np.float32(1e-6)), 0.0, 1.0)
        gain = np.clip(known * cross / (of_rest + _FLOOR), 0.0, HIGHEST_GAIN)
        in_phase = _over_bands(cross) / (_over_bands(sizes) + _FLOOR)
        known_leak = np.clip(coherence, 0.0, 1.0) * (cross > 0.0)
        stem_power, rest_power = of_stem.sum(axis=1), of_rest.sum(axis=1)
        balance = stem_power / (stem_power + rest_power + _FLOOR)
        return Leak(gain, known_leak, np.clip(in_phase, 0.0, 1.0), balance), LeakState(after)

    def cancel(self, stem: np.ndarray, rest: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """The stem (B, 2, F, N) less the rest at the bands' gains (B, 2, K, N)."""
        return stem - np.repeat(gain, self.layout.widths, axis=2) * rest


def mid_side(spectrum: np.ndarray) -> np.ndarray:
    """Left and right (B, 2, ...) to mid and side."""
    return np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]], axis=1) * np.float32(0.5)


def _over_bands(values: np.ndarray) -> np.ndarray:
    """The sum of (B, 2, K, N) over sides and bands (B, N), in an order that does not depend on the number of frames."""
    batch, _, _, frames = values.shape
    rows: np.ndarray = np.ascontiguousarray(values.reshape(batch, -1, frames).transpose(0, 2, 1)).sum(axis=-1)
    return rows
