"""Repairer: the one object that the others call. Arrays, chunks of files and live streams, at any sample rate."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .auto import AutoChoice, AutoStream
from .bundle import Bundle, base_bundle
from .constants import BLOCK_SAMPLES, MODEL_RATE
from .detect.analysis import Analysis, analyse
from .dsp.channels import check_mix, finite, pair_count
from .dsp.resample import Resampler, check_rate
from .errors import MixMismatchError, OptionError
from .live import RepairStream
from .mixer import Mixer, SilenceMask
from .preset import AUTO, Preset, preset_or_blend
from .runtime import Runtime
from .segments import Segment, SegmentConfig, Segmenter
from .stem_names import check_role
from .stream import CorrectionBlend, CorrectionStream
from .trust import Trust

# One step until more steps prove themselves (docs/results.md): two cost more and gain next to nothing with this base.
QUALITY_STEPS = {"draft": 1, "standard": 1, "best": 2}
#: For a mask-based separator's stem: large enough for nearly all of the gain, with far better worst cases than at the
#: largest (docs/experiments.md).
SEPARATED_BLEND = CorrectionBlend(stem=0.8, wiener=0.4)
OFFLINE_FRAMES = 32
MOST_CHANNELS = 64

Chunk = np.ndarray | tuple[np.ndarray, np.ndarray]


class Repairer:
    """One loaded model with a blend of adapters. Audio is float32 (C, T), as in pedalboard.

        Repairer("bleed").process(stem, sample_rate, mix=mix)

    preset: a preset, its name or path, a blend such as "bleed=0.6,musical-noise=0.4", or "auto": the detectors choose
    for each array or file, and continuously in a stream. Without it, or with blend (adapter file -> weight 0..1.5), the
    base model. quality (draft, standard, best) or steps: of the sampler. wet: amount of the correction that is added,
    0..1. separated: the stem comes from a mask-based separator, so something is wrong everywhere and a Wiener filter
    helps (dsp/wiener.py). jobs: CPU cores that a file may use. restrained: only as much of the correction is let
    through as proved right (trust.py). linked: more than two channels are one signal and keep their phases and levels
    relative to each other (otherwise they are repaired in pairs). Raises PresetError, OptionError for values out of
    range, and ModelError for a missing or damaged bundle.
    """

    def __init__(
        self,
        preset: Preset | str | os.PathLike[str] | None = None,
        *,
        bundle: Path | None = None,
        blend: Mapping[Path, float] | None = None,
        wet: float | None = None,
        separated: bool | None = None,
        steps: int | None = None,
        quality: str = "standard",
        device: str = "auto",
        jobs: int | None = None,
        segments: SegmentConfig | None = None,
        restrained: bool = True,
        linked: bool = True,
    ) -> None:
        if preset is not None and blend is not None:
            raise OptionError("pass a preset or a blend, not both")
        if not isinstance(preset, Preset | str | os.PathLike | None):
            raise OptionError(f"preset {preset!r} is not a preset; pass a Preset, its name or path, or a blend as text")
        if quality not in QUALITY_STEPS:
            raise OptionError(f"quality {quality!r} is unknown; choose {', '.join(QUALITY_STEPS)}")
        self.steps = QUALITY_STEPS[quality] if steps is None else steps
        if not 1 <= self.steps <= 50:
            raise OptionError(f"steps={self.steps} is out of range; use 1 to 50")
        if wet is not None and not 0.0 <= wet <= 1.0:
            raise OptionError(f"wet={wet:g} is out of range; use 0 (untouched) to 1 (fully repaired)")
        self.jobs = jobs if jobs is not None else available_cores()
        if self.jobs < 1:
            raise OptionError(f"jobs={self.jobs} is out of range; use 1 or more")
        self.segments = segments or SegmentConfig()
        self.linked = linked
        self._wet, self._separated, self._restrained, self._device = wet, separated, restrained, device
        self._auto = AutoChoice(self._with) if preset == AUTO else None
        if isinstance(preset, str | os.PathLike):
            preset = preset_or_blend("general" if self._auto else preset)
        adapters = blend if blend is not None else preset.adapters if preset is not None else {}
        self.runtime = Runtime(Bundle.load(bundle or base_bundle()), adapters, device)
        self._use(preset)

    def _use(self, preset: Preset | None) -> None:
        self.preset = preset
        self.wet = self._wet if self._wet is not None else preset.wet if preset is not None else 1.0
        self.trust = self.runtime.trust if self._restrained else Trust()
        self.correction_blend: CorrectionBlend | None = None
        if self._separated if self._separated is not None else preset is not None and preset.separated:
            self.correction_blend = SEPARATED_BLEND

    def _with(self, preset: Preset) -> Repairer:
        """The same with a preset that auto chose; the model is loaded again only if its adapters differ."""
        other = copy.copy(self)
        other._auto = None
        if not preset.wet:
            other._wet = None  # a stem that needs no repair gets none, whatever the wet that was asked for
        if self.preset is None or preset.adapters != self.preset.adapters:
            other.runtime = Runtime(self.runtime.bundle, preset.adapters, self._device)
        other._use(preset)
        return other

    @property
    def is_auto(self) -> bool:
        """Whether the detectors choose the preset."""
        return self._auto is not None

    def choose(self, analysis: Analysis) -> Repairer:
        """What repairs a stem with this analysis, and its `preset`: for auto the choice, otherwise this repairer."""
        return self._auto.choose(analysis)[0] if self._auto else self

    @property
    def provider(self) -> str:
        """'cuda' or 'cpu': where the model really runs."""
        return self.runtime.provider

    def process(
        self, audio: np.ndarray, sample_rate: float, mix: np.ndarray | None = None, *, role: str | None = None
    ) -> np.ndarray:
        """Repair a whole array (C, T) or (T,), with the mix of the same shape if there is one. Returns a new array.
        role: what the stem is, one of stem_names.ROLES, if it is known."""
        stem = _checked(audio, "audio")
        whole = None if mix is None else _checked(mix, "mix")
        if whole is not None:
            check_mix(stem, whole)
        used = self
        if self.is_auto:
            used = self.choose(analyse(finite(stem), sample_rate, None if whole is None else finite(whole)))
        blocks = [slice(start, start + BLOCK_SAMPLES) for start in range(0, stem.shape[1], BLOCK_SAMPLES)]
        chunks: Iterator[Chunk] = (stem[:, b] if whole is None else (stem[:, b], whole[:, b]) for b in blocks)
        parts = list(used.process_chunks(chunks, sample_rate, len(stem), has_mix=whole is not None, role=role))
        out = np.concatenate(parts, axis=1) if parts else np.zeros_like(stem)
        return out.reshape(np.shape(audio))

    def process_chunks(
        self, chunks: Iterable[Chunk], sample_rate: float, channels: int, *, has_mix: bool = False,
        role: str | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Chunks (C, n), or pairs of stem and mix chunks, to repaired chunks: as many samples in total as came in, in
        memory that does not grow with the length. role: as in `process`. Raises OptionError where a chunk does not
        fit, for another role, and for auto."""
        if self.is_auto:
            raise OptionError("auto chooses by the whole stem, not by chunks; use process, render_file or stream")
        rate = check_rate(sample_rate)
        check_role(role)
        checked = (_checked_chunk(chunk, channels, has_mix) for chunk in chunks)
        if self.wet == 0.0:
            yield from (stem for stem, _ in checked)
            return
        mixer = Mixer(channels, rate, wet=self.wet)
        mask = SilenceMask(rate, channels)
        sources = 2 * channels if has_mix else channels
        down, up = Resampler(rate, MODEL_RATE, sources), Resampler(MODEL_RATE, rate, channels)
        received = returned = 0

        def at_model_rate() -> Iterator[np.ndarray]:
            nonlocal received
            for stem, mix in checked:
                mixer.push(stem)
                clean = finite(stem)
                mask.push(clean)
                received += stem.shape[1]
                yield down.process(clean if mix is None else np.concatenate([clean, finite(mix)]))
            mask.end()
            if rate != MODEL_RATE:
                # As in a live stream, silence follows the end, until the resamplers have let go of it.
                yield down.process(np.zeros((sources, rate // 4), np.float32), last=True)

        def mixed(correction: np.ndarray) -> np.ndarray:
            nonlocal returned
            returned += correction.shape[1]
            mixer.push_correction(mask.apply(correction))
            return mixer.pull(correction.shape[1]).audio

        for found in self._corrections(at_model_rate(), channels, has_mix, role):
            if (correction := up.process(found)[:, : received - returned]).shape[1]:
                yield mixed(correction)
        if missing := received - returned:
            # What is still missing is less than the resampler's own delay.
            correction = up.process(np.zeros((channels, 0), np.float32), last=True)[:, :missing]
            yield mixed(np.pad(correction, ((0, 0), (0, missing - correction.shape[1]))))

    def stream(
        self, sample_rate: float, channels: int, *, has_mix: bool = False, chunk_frames: int = 4,
        role: str | None = None,
    ) -> RepairStream:  # fmt: skip
        """A live stream: `process(block)`, or `process(block, mix_block)` with has_mix, returns a block of the same
        size, `latency_samples` later; `flush()` the rest. role: as in `process`. For auto an `AutoStream`."""
        rate = check_rate(sample_rate)
        if self.is_auto:
            return AutoStream(
                rate, channels, make_repairer=self._with, has_mix=has_mix, chunk_frames=chunk_frames, role=role
            )
        return RepairStream(self.correction_stream(), rate, channels, has_mix, self.wet, chunk_frames, role)

    def correction_stream(self) -> CorrectionStream:
        """The model's own stream, for `RepairStream.swap`."""
        return CorrectionStream(
            self.runtime, self.steps, trust=self.trust, linked=self.linked, blend=self.correction_blend
        )

    def _corrections(
        self, blocks: Iterator[np.ndarray], channels: int, has_mix: bool, role: str | None
    ) -> Iterator[np.ndarray]:
        """Model-rate blocks (stem and mix channels stacked) to the correction (C, n), aligned, as many samples as came
        in."""
        model = self.correction_stream()
        sources = 2 * channels if has_mix else channels
        cut = Segmenter(blocks, channels, sources, model.timing, model.history_samples, self.segments, self.jobs)
        if self.jobs == 1:
            for segment in cut:
                yield _segment_correction(model, segment, channels, has_mix, role)
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            running: deque[Future[np.ndarray]] = deque()
            try:
                for segment in cut:
                    running.append(pool.submit(_segment_correction, model, segment, channels, has_mix, role))
                    if len(running) > self.jobs:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _segment_correction(
    model: CorrectionStream, segment: Segment, channels: int, has_mix: bool, role: str | None
) -> np.ndarray:
    """The correction (C, length) of one segment, warmed up by the audio before it."""
    hop, delay = model.timing.hop, model.timing.delay_samples
    needed = segment.before + segment.length + delay
    states = [model.start(role=role) for _ in range(pair_count(channels))]
    wanted = np.zeros((channels, segment.length), np.float32)
    # Features and filter remember longer than the model sees: what is out of its sight only updates them.
    remembered = max(0, segment.before - model.warmup_samples) // hop * hop
    if remembered:
        part = segment.audio[:, :remembered]
        mix = part[channels:] if has_mix else None
        _, states = model.process_channels(part[:channels], mix, states, listen_only=True)
    size = OFFLINE_FRAMES * hop
    for start in range(remembered, needed, size):
        count = min(size, -(-(needed - start) // hop) * hop)
        block = segment.audio[:, start : start + count]
        if block.shape[1] < count:
            block = np.pad(block, ((0, 0), (0, count - block.shape[1])))
        correction, states = model.process_channels(block[:channels], block[channels:] if has_mix else None, states)
        # This correction belongs to the samples from `at` on, counted from the segment's first wanted one.
        at = start - delay - segment.before
        low, high = max(0, at), min(segment.length, at + count)
        if low < high:
            wanted[:, low:high] = correction[:, low - at : high - at]
    return wanted


def _checked(audio: np.ndarray, name: str) -> np.ndarray:
    found = np.atleast_2d(np.asarray(audio))
    if found.dtype.kind != "f":
        raise OptionError(
            f"{name} of type {found.dtype}: pass floats with a full scale of 1.0 (integers are not scaled)"
        )
    if found.ndim != 2:
        raise OptionError(f"{name} of shape {np.shape(audio)}: pass (channels, samples) or (samples,)")
    if len(found) > MOST_CHANNELS:
        raise OptionError(f"{name} of shape {np.shape(audio)} has {len(found)} channels; pass (channels, samples)")
    return found.astype(np.float32, copy=False)


def _checked_chunk(chunk: Chunk, channels: int, has_mix: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Stem and mix of a chunk; the stem as a copy."""
    stem, mix = chunk if isinstance(chunk, tuple) else (chunk, None)
    if stem.ndim != 2 or stem.shape[0] != channels:
        raise OptionError(f"chunk of shape {stem.shape}: pass ({channels}, samples)")
    if (mix is not None) != has_mix:
        raise MixMismatchError(f"has_mix={has_mix}, but a chunk came {'with' if mix is not None else 'without'} a mix")
    if mix is not None:
        check_mix(stem, mix)
    return np.array(stem, np.float32), None if mix is None else np.asarray(mix, np.float32)
