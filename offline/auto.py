"""`--preset auto` for files: the detectors analyse each file and choose its preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..engine.auto import preset_for
from ..engine.preset import Preset
from .analysis import analyse_pair
from .pair import StemAndMix
from .render import ChunkRepairer, Progress


@dataclass
class AutoChoice:
    """Chooses preset and repairer for one file after another; equal choices in a row share a repairer."""

    make_repairer: Callable[[Preset], ChunkRepairer]
    _made: dict[tuple[str, bool], ChunkRepairer] = field(default_factory=dict)

    def __call__(self, pair: StemAndMix, progress: Progress | None = None) -> tuple[ChunkRepairer, Preset]:
        """Raises what `analyse_pair` and `make_repairer` raise."""
        preset = preset_for(analyse_pair(pair, progress=progress))
        key = preset.name, preset.separated
        if key not in self._made:
            self._made = {key: self.make_repairer(preset)}  # only one at a time, because a model takes memory
        return self._made[key], preset


RepairerChoice = tuple[ChunkRepairer, Preset] | AutoChoice
"""One repairer and preset for all files, or a choice for each file."""
