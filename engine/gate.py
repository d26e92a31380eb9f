"""Lets the change through where the detectors hear something wrong, so that a clean stem is left alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .detect.bank import TYPES
from .errors import OptionError
from .features import FEATURES
from .latent import BandLayout


@dataclass(frozen=True)
class Gate:
    """A share 0..1 of the change for each band and frame, by the worst severity of any type there within the
    look-ahead: none up to `closed`, all from `opened` on, and linear between."""

    closed: float = 0.12
    opened: float = 0.35

    def __post_init__(self) -> None:
        if not 0.0 <= self.closed < self.opened <= 1.0:
            raise OptionError(f"gate from {self.closed:g} to {self.opened:g}: give two rising numbers in 0 to 1")

    def start(self, batch: int, layout: BandLayout, lookahead: int) -> np.ndarray:
        """State before the first frame: the severities (B, K, L) of the frames that wait for their look-ahead."""
        return np.zeros((batch, layout.bands, lookahead), np.float32)

    def __call__(self, control: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The control branch's input (B, 238, K, N) to shares (B, K, N) for the frames that leave the look-ahead, which
        are L frames earlier, and the state after them."""
        worst = control[:, FEATURES - len(TYPES) :].max(axis=1)
        joined = np.concatenate([held, worst], axis=-1)
        count = worst.shape[-1]
        reach = held.shape[-1] + 1
        heard = np.lib.stride_tricks.sliding_window_view(joined, reach, axis=-1).max(axis=-1)
        share = np.clip((heard - self.closed) / (self.opened - self.closed), 0.0, 1.0)
        return share.astype(np.float32), joined[..., count:]


def over_bins(share: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Each band's share to its bins: (B, K, N) to (B, 1, F, N), for both channels."""
    return np.repeat(share, layout.widths, axis=1)[:, None]
