"""The format of a stream's sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...engine.dsp.resample import check_rate
from ..osc import MAX_BLOCK, MAX_CHANNELS, Code, ProtocolError


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
