"""Aligns files."""

from __future__ import annotations

from ..engine.mix.locate import MAX_OFFSET_S as MAX_OFFSET_S
from ..engine.mix.locate import Alignment as Alignment
from ..engine.mix.locate import estimate_alignment as estimate_alignment
from ..engine.mix.locate import max_offset_samples
from ..engine.mix.timing import TimeMap
from .audiofile import AudioInfo
from .mix_reader import MixReader


def open_early(mix: AudioInfo) -> MixReader:
    """Read a mix as `estimate_alignment` needs it: from MAX_OFFSET_S before its start."""
    return MixReader(mix, TimeMap.constant(-max_offset_samples(mix.sample_rate)))
