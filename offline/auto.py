"""`--preset auto` for files: the detectors listen to each file, and what they hear chooses its preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.auto import preset_for
from ..engine.preset import Preset
from .analysis import analyse_file
from .render import ChunkRepairer, Progress


@dataclass
class AutoChoice:
    """Chooses preset and repairer for one file after the other; equal choices that follow each other share a
    repairer."""

    make_repairer: Callable[[Preset], ChunkRepairer]
    _made: dict[tuple[str, bool], ChunkRepairer] = field(default_factory=dict)

    def __call__(
        self, source: Path, mix: Path | None, progress: Progress | None = None
    ) -> tuple[ChunkRepairer, Preset]:
        """Raises what `analyse_file` raises."""
        preset = preset_for(analyse_file(source, mix, progress=progress))
        key = preset.name, preset.separated
        if key not in self._made:
            self._made = {key: self.make_repairer(preset)}  # one at a time: a model takes memory
        return self._made[key], preset
