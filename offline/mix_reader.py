"""A song's samples beside a stem's, as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..engine.chain import Chain, ChainLink
from ..engine.dsp.fifo import Fifo
from .audiofile import BLOCK_SAMPLES, AudioInfo, AudioReader


class MixSource:
    """The mixture's samples as float32, through a chain of its own, with silence after its end. The first
    `offset_samples` are left out; below 0, silence comes before them. gain: of all samples."""

    def __init__(
        self, info: AudioInfo, links: Sequence[ChainLink] = (), offset_samples: int = 0, gain: float = 1.0
    ) -> None:
        self._known = range(max(-offset_samples, 0), info.samples - offset_samples)
        self._gain, self._given = np.float32(gain), 0
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
        self._given += samples
        taken = self._fifo.pop(samples)
        return taken if self._gain == 1 else self._gain * taken

    def beside(self, stem: np.ndarray) -> np.ndarray:
        """As many of the next samples as the stem has (C, n); where the song has none, the stem itself, as if nothing
        else sounded there: silence would call it all too much."""
        start = self._given
        song = self.take(stem.shape[1])
        first, last = (min(max(edge - start, 0), stem.shape[1]) for edge in (self._known.start, self._known.stop))
        if (first, last) == (0, stem.shape[1]):
            return song
        return np.concatenate([stem[:, :first], song[:, first:last], stem[:, max(first, last) :]], axis=1)

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
