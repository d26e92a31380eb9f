"""What repairs a file: one preset for all, one for each job, or the one that the detectors choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..engine import auto
from ..engine.preset import Preset
from ..engine.repair import Repairer
from .analysis import analyse_pair
from .pair import StemAndMix
from .plan import BatchJob, JobDefaults
from .render import ChunkRepairer, Progress


class AutoChoice(auto.AutoChoice[ChunkRepairer]):
    """Chooses preset and repairer for one file after another."""

    def __call__(self, pair: StemAndMix, progress: Progress | None = None) -> tuple[ChunkRepairer, Preset]:
        """Raises what `analyse_pair` and `make_repairer` raise."""
        return self.choose(analyse_pair(pair, progress=progress))


RepairerChoice = tuple[ChunkRepairer, Preset] | AutoChoice
"""One repairer and preset for all files, or a choice for each file."""


@dataclass
class JobChoices:
    """The repairer of each job. The last one is kept, because a model takes memory.

    make_repairer: called with a preset and `wet`. provider: 'cuda' or 'cpu', where the last model really runs.
    """

    make_repairer: Callable[..., Repairer]
    defaults: JobDefaults
    provider: str = ""
    _last: dict[tuple[str | None, float | None], RepairerChoice] = field(default_factory=dict)

    def of(self, job: BatchJob) -> RepairerChoice:
        """Raises what `make_repairer` raises, PresetError and OptionError."""
        key = job.preset, job.wet
        if key not in self._last:
            preset, wet = self.defaults.preset_of(job), self.defaults.wet_of(job)
            if preset is None:
                # A stem that needs no repair gets a preset with wet 0, which no other amount must override.
                self._last = {key: AutoChoice(lambda chosen: self._make(chosen, wet if chosen.wet else None))}
            else:
                self._last = {key: (self._make(preset, wet), preset)}
        return self._last[key]

    def _make(self, preset: Preset, wet: float | None) -> Repairer:
        repairer = self.make_repairer(preset, wet=wet)
        self.provider = repairer.provider
        return repairer
