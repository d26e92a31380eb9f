"""All arithmetic of latency: how much later than a sample its repair comes out, in samples.

file       0: the correction is shifted back onto its sample
stream     STFT window + look-ahead + one chunk (+ both resamplers, where the rate is not the model's)
bridge     as a stream, + one chunk's time for the model to run in, + a reserve to fade out with
plug-in    `latency_bound`: one number for a sample rate, since a host asks before the bridge is reached
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .constants import MODEL_RATE
from .dsp.resample import Resampler

LATE_FADE_S = 0.005
#: (highest sample rate in Hz, latency in ms that no stream of the bridge exceeds up to it), and the same at the model's
#: own rate. Measured with soxr: just above four times the model's rate it lags more than below.
LATENCY_LIMITS_MS = ((31999, 590), (4 * MODEL_RATE, 370), (math.inf, 390))
MODEL_RATE_LIMIT_MS = 320


@dataclass(frozen=True)
class ModelTiming:
    """What a model needs of time, in samples at its own rate: hop, STFT window, look-ahead."""

    hop: int
    window: int
    lookahead: int

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> ModelTiming:
        """From a bundle.json, without loading the model."""
        hop = int(about["stft"]["hop"])
        return cls(hop, int(about["stft"]["n_fft"]), int(about["lookahead"]) * hop)

    @property
    def delay_samples(self) -> int:
        """How much later than its stem a correction comes, when both move in whole hops."""
        return self.lookahead + self.window - self.hop


@dataclass(frozen=True)
class BridgeLatency:
    """Latency of a stream of the bridge and its parts, in samples at the client's rate. adaptation: both resamplers,
    the time that the model has for a chunk, and the reserve."""

    total: int
    window: int
    lookahead: int
    chunk: int
    adaptation: int

    @classmethod
    def of(cls, timing: ModelTiming, sample_rate: int, chunk_frames: int) -> BridgeLatency:
        """For a client's rate in Hz; chunks of `chunk_frames` hops."""
        chunk = chunk_frames * timing.hop
        running = -(-chunk * sample_rate // MODEL_RATE)
        total = stream_latency(timing, sample_rate, chunk_frames) + running + reserve_samples(sample_rate)
        parts = [part * sample_rate // MODEL_RATE for part in (timing.window - timing.hop, timing.lookahead, chunk)]
        return cls(total, parts[0], parts[1], parts[2], total - sum(parts))


def stream_latency(timing: ModelTiming, sample_rate: int, chunk_frames: int) -> int:
    """Samples at the host's rate from a sample's arrival until its correction is ready at the latest."""
    return _round_trip(sample_rate, chunk_frames * timing.hop, timing.delay_samples)


def reserve_samples(sample_rate: int) -> int:
    """Samples of correction that must be there beyond those that leave, so that it can be faded out."""
    return max(1, round(LATE_FADE_S * sample_rate))


def latency_bound(sample_rate: int) -> int:
    """Samples that no stream's latency exceeds at this rate: for clients that must state theirs before they have
    reached a bridge."""
    if sample_rate == MODEL_RATE:
        limit_ms = MODEL_RATE_LIMIT_MS
    else:
        limit_ms = next(limit for highest, limit in LATENCY_LIMITS_MS if sample_rate <= highest)
    return -(-sample_rate * limit_ms // 1000)


@cache  # there are few rates
def _round_trip(sample_rate: int, chunk: int, delay: int) -> int:
    """Both resamplers, the chunk and the delay; chunk and delay in samples at the model's rate.

    The sum of each stage's own worst case, so it holds however the resamplers' bursts and the chunks fall together.
    Takes some 70 ms for a new rate.
    """
    if sample_rate == MODEL_RATE:
        return chunk - 1 + delay
    down, up = _worst_lag(sample_rate, MODEL_RATE), _worst_lag(MODEL_RATE, sample_rate)
    return math.ceil((chunk - 1 + delay + down) * sample_rate / MODEL_RATE + up) + 1


def _worst_lag(rate_in: int, rate_out: int) -> float:
    """Most output samples that a resampler is behind its input, measured over four seconds of silence."""
    resampler = Resampler(rate_in, rate_out, 1)
    step = max(1, rate_in // 4000)
    block = np.zeros((1, step), np.float32)
    given = ready = 0
    worst = 0.0
    while given < 4 * rate_in:
        # The lag is largest just before the next output comes: so count what was ready before this block.
        given += step
        worst = max(worst, given * rate_out / rate_in - ready)
        ready += resampler.process(block).shape[-1]
    return worst
