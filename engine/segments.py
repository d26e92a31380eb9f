"""Cuts long files into segments for several cores: at quiet places, away from attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .errors import OptionError
from .latency import ModelTiming


@dataclass(frozen=True)
class SegmentConfig:
    """Lengths in hops; a segment is cut at the best place between shortest and longest."""

    shortest: int = 860
    longest: int = 2580
    attack_hops: int = 6
    attack_weight: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise OptionError(f"segments of {self.shortest} to {self.longest} hops: use 1 <= shortest <= longest")


def hop_levels_db(audio: np.ndarray, hop: int) -> np.ndarray:
    """Level of each whole hop of a waveform (..., C, T) in dB re full scale, floored at -120: (T // hop,)."""
    count = audio.shape[-1] // hop
    blocks = audio[..., : count * hop].reshape(-1, count, hop)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=(0, 2)) if blocks.size else np.zeros(count)
    return 10.0 * np.log10(power + 1e-12)


def best_cut(levels_db: np.ndarray, config: SegmentConfig) -> int:
    """Hop before which to cut, given the levels from the segment's start on: between `shortest` and `longest`.

    Cost in dB: the level on both sides, plus twice the steepest rise (attack) within six hops around, so that cuts fall
    into pauses or decays, not before a drum hit. Of equal costs the latest wins, so silence does not shorten segments.
    """
    last = min(config.longest, len(levels_db))
    if last <= config.shortest:
        return last
    rises = np.maximum(np.diff(levels_db, prepend=levels_db[:1]), 0.0)
    cuts = np.arange(config.shortest, last + 1)
    near = config.attack_hops
    padded = np.pad(rises, (near, near + 1))
    steepest = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1)[cuts].max(axis=1)
    before = levels_db[cuts - 1]
    after = levels_db[np.minimum(cuts, len(levels_db) - 1)]
    cost = np.maximum(before, after) + config.attack_weight * steepest
    return int(cuts[::-1][np.argmin(cost[::-1])])


@dataclass(frozen=True)
class Segment:
    """Stem and mix channels (2 C, before + length + after); the correction is wanted for `length` samples after
    `before`."""

    audio: np.ndarray
    before: int
    length: int


class Segmenter:
    """Cuts model-rate blocks into segments, each with up to about `history_samples` of audio before it to warm up, and
    the model's delay after it. `channels` of the `sources` channels are the stem's. What is left at the end is divided
    among the jobs."""

    SHORTEST_PART = 344  # hops, four seconds: less is not worth its warm-up

    def __init__(
        self,
        blocks: Iterator[np.ndarray],
        channels: int,
        sources: int,
        timing: ModelTiming,
        history_samples: int,
        config: SegmentConfig,
        jobs: int,
    ) -> None:
        self.blocks, self.channels, self.sources = blocks, channels, sources
        self.timing, self.history_samples, self.config, self.jobs = timing, history_samples, config, jobs

    def __iter__(self) -> Iterator[Segment]:
        hop, after = self.timing.hop, self.timing.delay_samples
        buffer = np.zeros((self.sources, 0), np.float32)
        config, before, ended = self.config, 0, False
        while True:
            pending, have = [buffer], buffer.shape[1]
            while not ended and have - before < config.longest * hop + after:
                block = next(self.blocks, None)
                if block is None:
                    ended, config = True, self._divided(-(-(have - before) // hop))
                else:
                    pending.append(block)
                    have += block.shape[1]
            buffer = np.concatenate(pending, axis=1) if len(pending) > 1 else buffer
            new = have - before
            if ended and new <= config.longest * hop:
                if new > 0:
                    yield Segment(buffer, before, new)
                return
            levels = hop_levels_db(buffer[: self.channels, before : before + config.longest * hop], hop)
            length = best_cut(levels, config) * hop
            yield Segment(buffer[:, : before + length + after], before, length)
            keep = max(0, before + length - self.history_samples)
            keep -= keep % hop
            buffer, before = buffer[:, keep:].copy(), before + length - keep

    def _divided(self, hops: int) -> SegmentConfig:
        part = max(self.SHORTEST_PART, -(-hops // self.jobs))
        if self.jobs == 1 or part >= self.config.longest:
            return self.config
        return replace(self.config, shortest=min(self.config.shortest, part * 4 // 5), longest=part)
