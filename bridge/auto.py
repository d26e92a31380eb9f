"""`--preset auto`: what to repair is chosen by what the detectors find in each file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..engine.detect.analysis import Analysis
from .analyze import analyse_file
from .presets import Preset, blend_presets
from .render import ChunkRepairer, Progress

AUTO = "auto"
_NOTHING = Preset(
    name=AUTO,
    title="Nothing to repair",
    description="The detectors found nothing, so the sound stays as it is.",
    artefact="nothing",
    wet=0.0,
    note="nothing was found that a repair would be needed for; the sound stays as it is",
)


def preset_for(analysis: Analysis) -> Preset:
    """The blend that the findings ask for; without any, one that leaves the sound as it is."""
    weights = analysis.blend()
    if not weights:
        return _NOTHING
    blend = blend_presets(weights)
    chosen = f"chose {blend.name}"
    return replace(blend, note=f"{chosen}; {blend.note}" if blend.note else chosen)


@dataclass
class AutoChoice:
    """Chooses preset and repairer for one file after the other; equal choices that follow each other share a
    repairer."""

    make_repairer: Callable[[Preset], ChunkRepairer]
    _made: dict[str, ChunkRepairer] = field(default_factory=dict)

    def __call__(
        self, source: Path, mix: Path | None, progress: Progress | None = None
    ) -> tuple[ChunkRepairer, Preset]:
        """Raises what `analyse_file` raises."""
        preset = preset_for(analyse_file(source, mix, progress=progress))
        if preset.name not in self._made:
            self._made = {preset.name: self.make_repairer(preset)}  # one at a time: a model takes memory
        return self._made[preset.name], preset
