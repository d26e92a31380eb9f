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
from .moving_sums import LONGEST, WIDTHS, moving_sums, no_sums

HIGHEST_GAIN = 1.5
_ROWS = [np.arange(4) if width == LONGEST else np.arange(0) for width in WIDTHS]
_FLOOR = np.float32(1e-9)


@dataclass(frozen=True)
class LeakState:
    """The sums over the last frames."""

    sums: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class LeakCanceller:
    """Packed spectra of mid and side of stem and mixture (B, 2, F, N), frame by frame, with LONGEST frames of
    memory."""

    layout: BandLayout = field(default_factory=BandLayout)

    def start(self, batch: int) -> LeakState:
        """State before the first frame: silence."""
        return LeakState(no_sums((batch * 2, 4, self.layout.bands)))

    def measure(self, stem: np.ndarray, rest: np.ndarray, state: LeakState) -> tuple[np.ndarray, np.ndarray, LeakState]:
        """The gain (B, 2, K, N), 0 to HIGHEST_GAIN, with which the rest stands in the stem, how much of the stem in the
        band that explains, 0 to 1 (squared coherence), and the state after these frames.

        Gains that chance alone would find in so few frames are lowered towards 0: by the share of the coherence that
        is above what is expected of two unrelated signals.
        """
        batch, sides, _, frames = stem.shape
        shared = stem.real * rest.real + stem.imag * rest.imag
        power = [np.square(x.real) + np.square(x.imag) for x in (rest, stem)]
        sums = [self._band_sum(x) for x in (shared, *power)]
        values = np.stack([*sums, np.ones_like(sums[0])], axis=2).reshape(batch * sides, 4, -1, frames)
        found, after = moving_sums(values, _ROWS, state.sums)
        cross, of_rest, of_stem, count = np.moveaxis(found.reshape(batch, sides, 4, -1, frames), 2, 0)
        coherence = np.square(cross) / (of_rest * of_stem + _FLOOR * _FLOOR)
        # At an overlap of 75% two Hann frames count as one; of the error the real part alone counts, half of it.
        independent = count * self.layout.widths[:, None].astype(np.float32)
        known = np.clip(1.0 - 1.0 / (independent * coherence + np.float32(1e-6)), 0.0, 1.0)
        gain = np.clip(known * cross / (of_rest + _FLOOR), 0.0, HIGHEST_GAIN)
        return gain, np.clip(coherence, 0.0, 1.0) * (cross > 0.0), LeakState(after)

    def cancel(self, stem: np.ndarray, rest: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """The stem (B, 2, F, N) less the rest at the bands' gains (B, 2, K, N)."""
        return stem - np.repeat(gain, self.layout.widths, axis=2) * rest

    def _band_sum(self, values: np.ndarray) -> np.ndarray:
        """(B, 2, F, N) to (B, 2, K, N)."""
        starts = np.concatenate([[0], np.cumsum(self.layout.widths)[:-1]])
        return np.add.reduceat(values, starts, axis=2)
