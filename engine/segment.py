"""Where to cut a long stream: at quiet places away from attacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import OptionError


@dataclass(frozen=True)
class SegmentConfig:
    """Lengths in hops; a segment is cut at the best place between shortest and longest."""

    shortest: int = 860
    longest: int = 2580
    attack_hops: int = 6
    attack_weight: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise OptionError(f"segments of {self.shortest} to {self.longest} hops: give 1 <= shortest <= longest")


def hop_levels_db(audio: np.ndarray, hop: int) -> np.ndarray:
    """Level of each whole hop of a waveform (..., C, T) in dB re full scale, floored at -120: (T // hop,)."""
    count = audio.shape[-1] // hop
    blocks = audio[..., : count * hop].reshape(-1, count, hop)
    power = np.mean(np.square(blocks, dtype=np.float64), axis=(0, 2)) if blocks.size else np.zeros(count)
    return 10.0 * np.log10(power + 1e-12)


def best_cut(levels_db: np.ndarray, config: SegmentConfig) -> int:
    """Hop before which to cut, given the levels from the segment's start on: between `shortest` and `longest`.

    Cost in dB: the level on both sides, plus twice the steepest rise (attack) within six hops around, so a cut falls
    into a pause or a decay, not before a drum stroke. Of equal costs the latest wins, so silence does not shorten
    segments.
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
