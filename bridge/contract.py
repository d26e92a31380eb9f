"""What a stream of the bridge promises: its format, its latency, and what its answers and counters are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..engine.live import ChangeStream
from ..engine.resample import check_rate
from ..engine.stream import MODEL_RATE
from .output import reserve_samples
from .protocol import MAX_BLOCK, MAX_CHANNELS, Code, ProtocolError, Status


@dataclass(frozen=True)
class Format:
    """Of a stream's sound. Raises OptionError, ProtocolError for what cannot be."""

    sample_rate: int
    max_block: int
    channels: int
    mix_channels: int

    def __post_init__(self) -> None:
        check_rate(self.sample_rate)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ProtocolError(Code.ARGUMENTS, f"channels={self.channels}: give 1 to {MAX_CHANNELS}")
        if self.mix_channels not in (0, 1, 2, self.channels):
            raise ProtocolError(
                Code.ARGUMENTS, f"mixture channels={self.mix_channels}: give 0, 1, 2 or {self.channels} as the stem has"
            )
        if not 1 <= self.max_block <= MAX_BLOCK:
            raise ProtocolError(Code.ARGUMENTS, f"maximum block of {self.max_block} frames: give 1 to {MAX_BLOCK}")

    def mix_for_stem(self, mix: np.ndarray) -> np.ndarray:
        """Mixture channels (M, n) as the stem has them (C, n)."""
        if len(mix) == self.channels:
            return mix
        return np.repeat(mix.mean(axis=0, keepdims=True, dtype=np.float32), self.channels, axis=0)


@dataclass(frozen=True)
class Latency:
    """In samples at the client's rate. adaptation: both resamplers, and the time that the model has for a chunk."""

    total: int
    window: int
    lookahead: int
    chunk: int
    adaptation: int

    @classmethod
    def of(cls, changes: ChangeStream, window: int, lookahead: int) -> Latency:
        """window, lookahead in samples of the model's rate."""
        rate = changes.sample_rate
        slack = -(-changes.chunk_samples * rate // MODEL_RATE)
        total = changes.latency_samples + slack + reserve_samples(rate)
        parts = (window, lookahead, changes.chunk_samples)
        window, lookahead, chunk = (part * rate // MODEL_RATE for part in parts)
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


@dataclass(frozen=True)
class Answer:
    """A block that goes back: sound (C, n)."""

    sequence: int
    position: int
    flags: int
    status: Status
    seconds: float
    sound: np.ndarray


@dataclass
class Counters:
    """Since the stream was opened. load: processor time of the last seconds of sound, as a share of it."""

    blocks: int = 0
    late: int = 0
    lost: int = 0
    load: float = 0.0
