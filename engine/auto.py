"""`auto`: the detectors choose what to repair, once for a whole stem or continuously for a live stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from .detect.analysis import Analysis
from .detect.choice import Choice, ChoiceConfig, LiveChoice
from .dsp.channels import finite
from .dsp.resample import check_rate
from .errors import OptionError
from .live import RepairStream
from .preset import AUTO, Preset, blend_presets, load_preset
from .stream import CorrectionStream

_UNKNOWN = "no known fault found, but something was done to this stem; using general"
_SEPARATED = "looks like the output of a mask-based separator: repaired with general and a Wiener filter"
_NOTHING = Preset(
    name=AUTO,
    title="Nothing to repair",
    description="The detectors found nothing, so the audio stays as it is.",
    artefact="nothing",
    wet=0.0,
    note="nothing found that needs repair; left unchanged",
)
_NOTHING_WITHOUT_MIX = replace(
    _NOTHING, note="nothing found, but bleed cannot be detected without the mix; give the mix too"
)


def preset_for(analysis: Analysis) -> Preset:
    """As `preset_for_choice`, for a whole file."""
    choice = Choice(analysis.blend(), analysis.is_separated, analysis.is_disturbed)
    return preset_for_choice(choice, analysis.has_mix)


def preset_for_choice(choice: Choice, has_mix: bool) -> Preset:
    """The blend of the presets with these weights. Without any: general, if something was done to the stem that no
    detector knows; otherwise a preset that changes nothing, since a true stem has to stay as it is. For a mask-based
    separator's stem: general as `separated`, with a Wiener filter beside the model, since the adapters were trained on
    single faults and the base mostly on such stems."""
    if choice.is_separated:
        return replace(load_preset("general"), separated=True, note=_SEPARATED)
    if choice.weights:
        blend = blend_presets(choice.weights)
        chosen = f"using {blend.name}"
        return replace(blend, note=f"{chosen}; {blend.note}" if blend.note else chosen)
    if choice.is_disturbed:
        return replace(load_preset("general"), note=_UNKNOWN)
    return _NOTHING if has_mix else _NOTHING_WITHOUT_MIX


Made = TypeVar("Made")


@dataclass
class AutoChoice(Generic[Made]):
    """Chooses the preset, and makes what repairs with it, for one stem after another; equal choices in a row share
    it."""

    make_repairer: Callable[[Preset], Made]
    _made: dict[tuple[str, bool], Made] = field(default_factory=dict)

    def choose(self, analysis: Analysis) -> tuple[Made, Preset]:
        """Raises what `make_repairer` raises."""
        preset = preset_for(analysis)
        key = preset.name, preset.separated
        if (made := self._made.get(key)) is None:
            made = self.make_repairer(preset)
            self._made = {key: made}  # only one at a time, because a model takes memory
        return made, preset


class ModelOwner(Protocol):
    """What a stream needs of a Repairer."""

    @property
    def wet(self) -> float:
        """Amount of the correction that is added, 0 to 1."""

    def correction_stream(self) -> CorrectionStream:
        """The model's own stream."""


class AutoStream(RepairStream):
    """A live stream that chooses its presets by itself, slowly and with hysteresis, and cross-fades between them; it
    begins with `general`, and a choice outlives `flush`. `Repairer("auto").stream` opens one.

    preset: the present choice. error: why the last one could not be loaded. make_repairer: called for each new choice
    in a thread of its own, so that no block waits for it; with `wait`, as for rendering, the block that asks for it
    waits, so that the result depends on the audio and its blocks, not on time. The stream is a context manager; `close`
    ends its thread.
    """

    def __init__(
        self,
        sample_rate: float,
        channels: int,
        *,
        make_repairer: Callable[[Preset], ModelOwner],
        has_mix: bool = False,
        chunk_frames: int = 4,
        role: str | None = None,
        config: ChoiceConfig | None = None,
        wait: bool = False,
    ) -> None:
        self.preset = load_preset("general")
        self.error: Exception | None = None
        first = make_repairer(self.preset)
        rate = check_rate(sample_rate)
        super().__init__(first.correction_stream(), rate, channels, has_mix, first.wet, chunk_frames, role)
        self._choice = LiveChoice(rate, channels, has_mix, config or ChoiceConfig())
        self._make, self._wait = make_repairer, wait
        self._requested: Choice | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="stemprover-preset")
        self._closed = False
        self._loading: Future[tuple[Preset, CorrectionStream | None, float]] | None = None

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """As `RepairStream.process`."""
        if self._closed:
            raise OptionError("this stream was closed; open a new one")
        out = super().process(block, mix)
        wanted = self._choice.process(finite(block), None if mix is None else finite(mix))
        if self._choice.made and wanted != self._requested and self._loading is None:
            self._requested = wanted
            self._loading = self._worker.submit(self._prepare, preset_for_choice(wanted, self.has_mix))
        if self._loading is not None and (self._wait or self._loading.done()):
            loaded, self._loading = self._loading, None
            try:
                preset, model, wet = loaded.result()
                self.swap(model, wet)
                self.preset, self.error = preset, None
            except Exception as error:  # whatever loading raises: the present preset stays
                self.error = error
        return out

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._worker.shutdown(cancel_futures=True)

    def __enter__(self) -> AutoStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, preset: Preset) -> tuple[Preset, CorrectionStream | None, float]:
        if not preset.wet:
            return preset, None, 0.0
        made = self._make(preset)
        return preset, made.correction_stream(), made.wet
