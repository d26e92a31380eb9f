"""Reads the mix in step with its stem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..engine.chain import Chain, PluginSettings
from ..engine.dsp.fifo import Fifo
from .audiofile import BLOCK_SAMPLES, AudioInfo, AudioReader


class MixReader:
    """An endless stream of a file's samples as float32, through a plugin chain of its own, with silence after the end.

    offset_samples: how many samples to leave out at the start; below 0, how many samples of silence come first.
    gain: applied to all samples.
    """

    def __init__(
        self, info: AudioInfo, plugins: Sequence[PluginSettings] = (), offset_samples: int = 0, gain: float = 1.0
    ) -> None:
        self._covered = range(max(-offset_samples, 0), info.samples - offset_samples)
        self._gain, self._position = np.float32(gain), 0
        self._waiting = Fifo()
        self._blocks = self._read(info, Chain(plugins, info.sample_rate, info.channels), offset_samples)

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples)."""
        while len(self._waiting) < samples:
            self._waiting.push(next(self._blocks))
        self._position += samples
        taken = self._waiting.pop(samples)
        return taken if self._gain == 1 else self._gain * taken

    def take_filled(self, stem: np.ndarray) -> np.ndarray:
        """The next samples (C, n), as many as the stem has.

        Where the file has none, the stem itself fills the gap, as if nothing else played there: next to silence, all of
        the stem would look wrong.
        """
        start = self._position
        mix = self.take(stem.shape[1])
        first, last = (min(max(edge - start, 0), stem.shape[1]) for edge in (self._covered.start, self._covered.stop))
        if (first, last) == (0, stem.shape[1]):
            return mix
        return np.concatenate([stem[:, :first], mix[:, first:last], stem[:, max(first, last) :]], axis=1)

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
