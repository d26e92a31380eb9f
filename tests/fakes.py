"""A repairer without a model: it changes the sound in a way that is easy to foresee. Also used by child processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np

Block = np.ndarray | tuple[np.ndarray, np.ndarray]


class FakeRepairer:
    """out = gain * stem + mix_gain * mix, handed out late and in other chunk sizes than it came in.

    nan_at: a sample that becomes NaN. pause_s: how long each chunk takes.
    """

    def __init__(
        self, gain: float = 1.0, mix_gain: float = 0.0, *, hold_samples: int = 1000, chunk_samples: int = 7777,
        nan_at: int | None = None, pause_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.gain, self.mix_gain = np.float32(gain), np.float32(mix_gain)
        self.hold_samples, self.chunk_samples = hold_samples, chunk_samples
        self.nan_at, self.pause_s = nan_at, pause_s
        self.had_mix: bool | None = None
        self.seen: list[np.ndarray] = []
        self.seen_mix: list[np.ndarray] = []
        self.most_waiting_samples = 0
        self.provider = "cpu"

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        self.had_mix = has_mix
        waiting = np.zeros((channels, 0), np.float32)
        for chunk in chunks:
            stem, mix = chunk if isinstance(chunk, tuple) else (chunk, None)
            assert stem.dtype == np.float32
            assert stem.shape[0] == channels
            self.seen.append(stem)
            out = stem * self.gain
            if mix is not None:
                assert mix.shape == stem.shape
                assert mix.dtype == np.float32
                self.seen_mix.append(mix)
                out = out + mix * self.mix_gain
            waiting = np.concatenate([waiting, out], axis=1)
            self.most_waiting_samples = max(self.most_waiting_samples, waiting.shape[1])
            while waiting.shape[1] >= self.hold_samples + self.chunk_samples:
                yield self._finish(waiting[:, : self.chunk_samples])
                waiting = waiting[:, self.chunk_samples :]
        if waiting.shape[1]:
            yield self._finish(waiting)

    def _finish(self, chunk: np.ndarray) -> np.ndarray:
        time.sleep(self.pause_s)
        if self.nan_at is not None:
            chunk = chunk.copy()
            chunk[:, self.nan_at % chunk.shape[1]] = np.nan
        return chunk

    @property
    def stem(self) -> np.ndarray:
        """All of the stem that came in (C, T)."""
        return np.concatenate(self.seen, axis=1)

    @property
    def mix(self) -> np.ndarray:
        """All of the mixture that came in (C, T)."""
        return np.concatenate(self.seen_mix, axis=1)
