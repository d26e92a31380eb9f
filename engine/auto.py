"""What to repair is chosen by what the detectors find: in each file (`--preset auto`), or in a stream as it runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from .detect.analysis import Analysis
from .detect.choice import Choice, ChoiceConfig, LiveChoice
from .dsp.channels import finite
from .errors import OptionError
from .preset import AUTO, Preset, blend_presets, load_preset
from .repair import Repairer
from .stream import DeltaStream

_UNSURE = "nothing was found for sure; chose general until something is"
_SEPARATED = "a separator's mask left this of the song; chose general and a Wiener filter for what masks get wrong"
_NOTHING = Preset(
    name=AUTO,
    title="Nothing to repair",
    description="The detectors found nothing, so the sound stays as it is.",
    artefact="nothing",
    wet=0.0,
    note="nothing was found that a repair would be needed for; the sound stays as it is",
)


def preset_for(analysis: Analysis) -> Preset:
    """As `preset_for_choice`, for what was found in a whole sound; where that is nothing it stays as it is, since there
    general does true stems harm, and nothing else much good (docs/training.md)."""
    if not analysis.found and not analysis.is_separated:
        return _NOTHING
    preset = preset_for_choice(Choice(analysis.blend(), analysis.is_separated), analysis.has_mix)
    if preset.separated:
        return replace(preset, note=f"{preset.note}; repairs the rest of the song beside it")
    return preset


def preset_for_choice(choice: Choice, has_mix: bool) -> Preset:
    """The blend of these weights by type of artefact. For none, in a running stream: with the song, general, until more
    is heard; without the song, one that leaves the sound as it is. For what a separator's mask left of the song,
    general, `separated`, with a Wiener filter beside the model: the adapters have learnt single faults, the base has
    heard such stems most."""
    if choice.is_separated:
        return replace(load_preset("general"), separated=True, note=_SEPARATED)
    if not choice.weights:
        return replace(load_preset("general"), note=_UNSURE) if has_mix else _NOTHING
    blend = blend_presets(choice.weights)
    chosen = f"chose {blend.name}"
    return replace(blend, note=f"{chosen}; {blend.note}" if blend.note else chosen)




class AutoStream:
    """A live stream that chooses its presets by itself, slowly and with hysteresis, and cross-fades from one choice to
    the next; it begins with `general`. `process`, `flush` and `latency_samples` as in `Repairer.stream`; `preset` is
    the present choice, `error` why the last one could not be had.

    make_repairer: called for each new choice, in a thread of its own so that no block waits for it; with `wait`, as for
    rendering, the block that asks for it waits, so that the result depends on the sound and its blocks, not on time.
    A separator's stem takes twice the time, unless make_repairer is told otherwise (`Repairer`'s `both_sides=False`).
    The stream is a context manager; `close` lets go of the thread.
    """

    def __init__(
        self,
        sample_rate: float,
        channels: int,
        *,
        has_mix: bool = False,
        chunk_frames: int = 4,
        make_repairer: Callable[[Preset], Repairer] = Repairer,
        config: ChoiceConfig | None = None,
        wait: bool = False,
    ) -> None:
        self.preset = load_preset("general")
        self.error: Exception | None = None
        first = make_repairer(self.preset)
        self._stream = first.stream(sample_rate, channels, has_mix=has_mix, chunk_frames=chunk_frames)
        self._choice = LiveChoice(sample_rate, channels, has_mix, config or ChoiceConfig())
        self._make, self._wait = make_repairer, wait
        self._asked: Choice | None = None
        self._has_mix = has_mix
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stemprover-preset")
        self._closed = False
        self._coming: Future[tuple[Preset, DeltaStream | None]] | None = None

    @property
    def latency_samples(self) -> int:
        """Samples from a sample's arrival to its repair; the same for every choice."""
        return self._stream.latency_samples

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """As `RepairStream.process`."""
        if self._closed:
            raise OptionError("this stream was closed; open a new one")
        out = self._stream.process(block, mix)
        wanted = self._choice.process(finite(block), None if mix is None else finite(mix))
        if self._choice.made and wanted != self._asked and self._coming is None:
            self._asked = wanted
            self._coming = self._worker.submit(self._prepare, preset_for_choice(wanted, self._has_mix))
        if self._coming is not None and (self._wait or self._coming.done()):
            found, self._coming = self._coming, None
            try:
                preset, delta = found.result()
                self._stream.swap(delta, preset.wet)
                self.preset, self.error = preset, None
            except Exception as error:  # whatever loading raises: the sound goes on with the preset that it has
                self.error = error
        return out

    def flush(self) -> np.ndarray:
        """As `RepairStream.flush`; the choice stays."""
        return self._stream.flush()

    def close(self) -> None:
        """Let go of the thread."""
        self._closed = True
        self._worker.shutdown(cancel_futures=True)

    def __enter__(self) -> AutoStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, preset: Preset) -> tuple[Preset, DeltaStream | None]:
        return preset, self._make(preset).delta_stream() if preset.wet else None
