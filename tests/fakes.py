"""Repairers without a model, whose output is easy to predict. Also used by child processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from stemprover.engine.latency import ModelTiming

Block = np.ndarray | tuple[np.ndarray, np.ndarray]


class FakeRepairer:
    """out = gain * stem + mix_gain * mix, returned late and in other chunk sizes than the input's.

    nan_at: a sample of each chunk that becomes NaN. pause_s: how long each chunk takes.
    """

    def __init__(
        self, gain: float = 1.0, mix_gain: float = 0.0, *, hold_samples: int = 1000, chunk_samples: int = 7777,
        nan_at: int | None = None, pause_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.gain, self.mix_gain = np.float32(gain), np.float32(mix_gain)
        self.hold_samples, self.chunk_samples = hold_samples, chunk_samples
        self.nan_at, self.pause_s = nan_at, pause_s
        self.had_mix: bool | None = None
        self.role: str | None = None
        self.seen: list[np.ndarray] = []
        self.seen_mix: list[np.ndarray] = []
        self.most_waiting_samples = 0
        self.provider = "cpu"

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False,
        role: str | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        self.had_mix, self.role = has_mix, role
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
        """All stem samples received (C, T)."""
        return np.concatenate(self.seen, axis=1)

    @property
    def mix(self) -> np.ndarray:
        """All mix samples received (C, T)."""
        return np.concatenate(self.seen_mix, axis=1)


class FakeModel:
    """Replaces engine.stream.CorrectionStream: the correction is `gain` times the stem plus `mix_gain` times the mix,
    with the real model's delay. pause_s: how long each chunk takes."""

    timing, warmup_samples, memory_samples, steps = ModelTiming(512, 2048, 16 * 512), 4096, 8192, 1

    def __init__(self, gain: float = 0.0, mix_gain: float = 0.0, pause_s: float = 0.0) -> None:
        self.gain, self.mix_gain, self.pause_s = np.float32(gain), np.float32(mix_gain), pause_s

    def start(self, batch: int = 1, role: str | None = None) -> np.ndarray:
        return np.zeros((2, self.timing.delay_samples), np.float32)

    def with_role(self, state: np.ndarray, role: str | None) -> np.ndarray:
        return state

    def process(self, stem: np.ndarray, mix: np.ndarray | None, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(stem), state

    def process_channels(
        self, stem: np.ndarray, mix: np.ndarray | None, states: list[np.ndarray], *, listen_only: bool = False
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        time.sleep(self.pause_s)
        made = self.gain * stem if mix is None else self.gain * stem + self.mix_gain * mix
        out, after = np.zeros_like(stem), []
        for pair, state in enumerate(states):
            channels = slice(2 * pair, min(2 * pair + 2, len(stem)))
            count = len(stem[channels])
            joined = np.concatenate([state[:count], made[channels]], axis=1)
            out[channels] = joined[:, : stem.shape[1]]
            after.append(joined[:, stem.shape[1] :])
        return out, after


class FakeModelRepairer:
    """Replaces engine.repair.Repairer in a bridge. gains: preset name to the gain of the correction. load_s: how long
    loading takes."""

    def __init__(
        self, gains: dict[str, float] | None = None, *, mix_gain: float = 0.0, pause_s: float = 0.0,
        load_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.gains, self.mix_gain, self.pause_s, self.load_s = gains or {}, mix_gain, pause_s, load_s

    def __call__(self, preset: object, **_: object) -> FakeModelRepairer:
        time.sleep(self.load_s)
        made = FakeModelRepairer(self.gains, mix_gain=self.mix_gain, pause_s=self.pause_s)
        made.name = preset.name  # type: ignore[attr-defined]
        return made

    name = "general"

    def correction_stream(self) -> FakeModel:
        return FakeModel(self.gains.get(self.name, 0.0), self.mix_gain, self.pause_s)
