"""Between the host's sample rate and the model's: the stem goes to the model's rate, the correction comes back."""

from __future__ import annotations

import numpy as np
import soxr

from ..errors import OptionError

LOWEST_RATE, HIGHEST_RATE = 8000, 192000


def check_rate(sample_rate: float) -> int:
    """The sample rate in Hz as an integer. Raises OptionError outside 8 to 192 kHz."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE or sample_rate != int(sample_rate):
        raise OptionError(
            f"sample rate {sample_rate:g} Hz is not supported; "
            f"convert to a whole number from {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
    return int(sample_rate)


class Resampler:
    """A stream of (C, n) blocks from one rate to another; linear phase, no offset: sample 0 stays at time 0 (soxr, HQ).

    The number of samples out depends only on how many samples went in, not on the blocks.
    """

    def __init__(self, rate_in: int, rate_out: int, channels: int) -> None:
        self._rates, self._channels = (rate_in, rate_out), channels
        self._soxr: soxr.ResampleStream | None = None  # made with the first block: it may take a megabyte

    def process(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        """The samples (C, m) that are ready after this block (C, n)."""
        if self._rates[0] == self._rates[1]:
            return block
        if self._soxr is None:
            self._soxr = soxr.ResampleStream(*self._rates, self._channels, dtype="float32", quality="HQ")
        return np.ascontiguousarray(self._soxr.resample_chunk(np.ascontiguousarray(block.T), last=last).T)
