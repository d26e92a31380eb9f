"""`--preset auto` for files: the detectors analyse each file and choose its preset."""

from __future__ import annotations

from ..engine import auto
from ..engine.preset import Preset
from .analysis import analyse_pair
from .pair import StemAndMix
from .render import ChunkRepairer, Progress


class AutoChoice(auto.AutoChoice[ChunkRepairer]):
    """Chooses preset and repairer for one file after another."""

    def __call__(self, pair: StemAndMix, progress: Progress | None = None) -> tuple[ChunkRepairer, Preset]:
        """Raises what `analyse_pair` and `make_repairer` raise."""
        return self.choose(analyse_pair(pair, progress=progress))


RepairerChoice = tuple[ChunkRepairer, Preset] | AutoChoice
"""One repairer and preset for all files, or a choice for each file."""
