"""A song's samples beside a stem's, as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..engine.fifo import Fifo
from .audiofile import BLOCK_SAMPLES, AudioInfo, AudioReader
from .chain import Chain, ChainLink


class MixSource:
    """The mixture's samples as float32, through a chain of its own, with silence after its end. The first
    `offset_samples` are left out; below 0, silence comes before them."""

    def __init__(self, info: AudioInfo, links: Sequence[ChainLink] = (), offset_samples: int = 0) -> None:
        self._fifo = Fifo()
        self._ready = 0
        self._blocks = self._read(info, Chain(links, info.sample_rate, info.channels), offset_samples)

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, `samples`)."""
        while self._ready < samples:
            block = next(self._blocks)
            self._fifo.push(block)
            self._ready += block.shape[1]
        self._ready -= samples
        return self._fifo.pop(samples)

    @staticmethod
    def _read(info: AudioInfo, chain: Chain, offset_samples: int) -> Iterator[np.ndarray]:
        if offset_samples < 0:
            yield chain(np.zeros((info.channels, -offset_samples), np.float32))
        left_out = max(offset_samples, 0)
        with AudioReader(info) as reader:
            for native in reader.blocks():
                kept = native[:, min(left_out, native.shape[1]) :]
                left_out -= native.shape[1] - kept.shape[1]
                if kept.shape[1]:
                    yield chain(reader.codec.decode(kept))
        while True:
            yield chain(np.zeros((info.channels, BLOCK_SAMPLES), np.float32))
