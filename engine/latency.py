"""All arithmetic of latency: how much later than a sample its repair comes out, in samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from .constants import MODEL_RATE
from .dsp.resample import Resampler


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


LATE_FADE_S = 0.005


def reserve_samples(sample_rate: int) -> int:
    """Samples of change that have to be there beyond those that go out, so that it can be faded out."""
    return max(1, round(LATE_FADE_S * sample_rate))


@dataclass(frozen=True)
class Latency:
    """In samples at the client's rate. adaptation: both resamplers, and the time that the model has for a chunk."""

    total: int
    window: int
    lookahead: int
    chunk: int
    adaptation: int

    @classmethod
    def of(cls, rate: int, window: int, lookahead: int, chunk: int) -> Latency:
        """window, lookahead, chunk in samples of the model's rate."""
        slack = -(-chunk * rate // MODEL_RATE)
        total = round_trip_latency(rate, chunk, window + lookahead) + slack + reserve_samples(rate)
        window, lookahead, chunk = (part * rate // MODEL_RATE for part in (window, lookahead, chunk))
        return cls(total, window, lookahead, chunk, total - window - lookahead - chunk)


def latency_bound(sample_rate: int) -> int:
    """Samples that no stream's latency passes at this rate: for clients that have to name theirs before they have
    reached a bridge."""
    if sample_rate == MODEL_RATE:
        thousandths = 320
    elif sample_rate < 32000:
        thousandths = 590
    else:  # what soxr was measured at; just above four times the model's rate it is further behind than below
        thousandths = 370 if sample_rate <= 4 * MODEL_RATE else 390
    return -(-sample_rate * thousandths // 1000)
