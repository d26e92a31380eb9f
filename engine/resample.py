"""Streams between the host's sample rate and the model's: the stem goes to the model's rate, the change comes back."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import soxr

from .errors import OptionError
from .stream import MODEL_RATE

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

    The number of samples out depends on the samples in so far alone, not on the blocks.
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


@cache  # of whole rates there are not so many
def round_trip_latency(sample_rate: int, chunk: int, delay: int) -> int:
    """Samples at the host's rate from a sample's arrival until its change is ready: both resamplers, the chunk, the
    delay.

    chunk and delay in samples of the model's rate. Takes some 70 ms for a new rate. A bound: the sum of
    each stage's own worst case, so it holds however the resamplers' bursts and the chunks fall together.
    """
    if sample_rate == MODEL_RATE:
        return chunk - 1 + delay
    there, back = worst_lag(sample_rate, MODEL_RATE), worst_lag(MODEL_RATE, sample_rate)
    return math.ceil((chunk - 1 + delay + there) * sample_rate / MODEL_RATE + back) + 1


def worst_lag(rate_in: int, rate_out: int) -> float:
    """Most output samples that a resampler is behind its input, over four seconds of silence sent through it."""
    resampler = Resampler(rate_in, rate_out, 1)
    step = max(1, rate_in // 4000)
    block = np.zeros((1, step), np.float32)
    given = ready = 0
    worst = 0.0
    while given < 4 * rate_in:
        # Just before the next output comes, the lag is as large as it gets: so count what was ready before this block.
        given += step
        worst = max(worst, given * rate_out / rate_in - ready)
        ready += resampler.process(block).shape[-1]
    return worst
