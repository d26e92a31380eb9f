"""Repairer: the one object that the others call. Arrays, chunks of files, and live streams, at any sample rate."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from .bundle import Bundle, base_bundle
from .constants import MODEL_RATE
from .dsp.channels import finite, pair_count
from .dsp.fifo import Fifo
from .dsp.resample import Resampler, check_rate
from .dsp.silence import SilenceGate
from .errors import MixMismatchError, OptionError
from .live import RepairStream
from .mixer import add_change
from .runtime import Runtime
from .segments import Segment, SegmentConfig, Segmenter
from .stream import DeltaStream, Shares

# One step until more steps prove themselves (README): two cost more and gain next to nothing with this base.
QUALITY_STEPS = {"draft": 1, "standard": 1, "best": 2}
#: For a separator's stem, with what is found on the rest of its song, and without, which takes half of the time: bold
#: enough for nearly all of the gain, with the worst cases far better than at the boldest (docs/training.md).
BOTH_SIDES = Shares(stem=0.62, rest=0.26, wiener=0.4)
ONE_SIDE = Shares(stem=0.8, rest=0.0, wiener=0.4)
OFFLINE_FRAMES = 32
BLOCK_SAMPLES = 1 << 16


class PresetLike(Protocol):
    """What a Repairer needs of a preset."""

    @property
    def adapters(self) -> Mapping[Path, float]:
        """Adapter file to weight."""

    @property
    def wet(self) -> float:
        """Share of the change that is added, 0 to 1."""

    @property
    def separated(self) -> bool:
        """Whether it is for what a separator's mask left of a song."""


Chunk = np.ndarray | tuple[np.ndarray, np.ndarray]


class Repairer:
    """One loaded model with a blend of adapters. Sound is float32 (C, T), as in pedalboard.

    preset or blend (adapter file -> weight 0..1.5) choose the adapters; `quality` (draft, standard, best) or `steps`
    the steps of the sampler; `wet` 0..1 the share of the change that is added; `separated`: a separator's mask left
    this of the mixture, so that something is wrong everywhere, a Wiener filter tells more of the two apart (wiener.py),
    and with `both_sides` the change is had from the rest of the mixture as well, in twice the time; `jobs` the cores
    that a file may use; `gated`: the model changes nothing where the detectors hear nothing wrong; `linked`: more than
    two channels are one sound, and keep their phases and levels against each other (else they are repaired two by two).
    Raises OptionError for values out of range and ModelError for a missing or damaged bundle.
    """

    def __init__(
        self,
        preset: PresetLike | None = None,
        *,
        bundle: Path | None = None,
        blend: Mapping[Path, float] | None = None,
        wet: float | None = None,
        separated: bool | None = None,
        both_sides: bool = True,
        steps: int | None = None,
        quality: str = "standard",
        device: str = "auto",
        jobs: int | None = None,
        segments: SegmentConfig | None = None,
        gated: bool = True,
        linked: bool = True,
    ) -> None:
        if preset is not None and blend is not None:
            raise OptionError("give a preset or a blend, not both")
        if quality not in QUALITY_STEPS:
            raise OptionError(f"quality {quality!r} is unknown; choose {', '.join(QUALITY_STEPS)}")
        self.steps = QUALITY_STEPS[quality] if steps is None else steps
        if not 1 <= self.steps <= 50:
            raise OptionError(f"steps={self.steps} is out of range; give 1 to 50")
        self.wet = wet if wet is not None else preset.wet if preset is not None else 1.0
        if not 0.0 <= self.wet <= 1.0:
            raise OptionError(f"wet={self.wet:g} is out of range; give 0 (untouched) to 1 (fully repaired)")
        self.jobs = jobs if jobs is not None else available_cores()
        if self.jobs < 1:
            raise OptionError(f"jobs={self.jobs} is out of range; give 1 or more")
        self.segments = segments or SegmentConfig()
        adapters = blend if blend is not None else preset.adapters if preset is not None else {}
        loaded = Bundle.load(bundle or base_bundle())
        self.linked = linked
        self.runtime = Runtime(loaded, adapters, device)
        self.gate = self.runtime.gate if gated else None
        self.shares: Shares | None = None
        if separated if separated is not None else preset is not None and preset.separated:
            self.shares = BOTH_SIDES if both_sides else ONE_SIDE
            self.gate = self.gate.for_separated() if self.gate else None

    @property
    def provider(self) -> str:
        """'cuda' or 'cpu': where the model really runs."""
        return self.runtime.provider

    def process(self, audio: np.ndarray, sample_rate: float, mix: np.ndarray | None = None) -> np.ndarray:
        """Repair a whole array (C, T) or (T,), with the mixture of the same shape where there is one. Returns a new
        array."""
        stem = _as_sound(audio, "audio")
        song = None if mix is None else _as_sound(mix, "mix")
        if song is not None and song.shape != stem.shape:
            raise MixMismatchError(
                f"mix of shape {song.shape} and stem of shape {stem.shape} must be equal (channels, samples)"
            )
        starts = range(0, stem.shape[1], BLOCK_SAMPLES)
        blocks = (slice(start, start + BLOCK_SAMPLES) for start in starts)
        chunks: Iterator[Chunk] = (stem[:, b] if song is None else (stem[:, b], song[:, b]) for b in blocks)
        parts = list(self.process_chunks(chunks, sample_rate, len(stem), has_mix=song is not None))
        out = np.concatenate(parts, axis=1) if parts else np.zeros_like(stem)
        return out.reshape(np.shape(audio))

    def process_chunks(
        self, chunks: Iterable[Chunk], sample_rate: float, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        """Chunks (C, n), or pairs of stem and mixture chunks, to repaired chunks: as many samples in total as came
        in, in memory that does not depend on the length. Raises OptionError where a chunk does not fit."""
        rate = check_rate(sample_rate)
        dry, gains, gate = Fifo(), Fifo(), SilenceGate(rate, channels)
        sources = 2 * channels if has_mix else channels
        there = Resampler(rate, MODEL_RATE, sources)
        total = 0

        def at_model_rate() -> Iterator[np.ndarray]:
            nonlocal total
            for chunk in chunks:
                stem, mix = chunk if isinstance(chunk, tuple) else (chunk, None)
                _check_block(stem, mix, channels, has_mix)
                stem = np.array(stem, np.float32)
                dry.push(stem)
                heard = finite(stem)
                gains.push(gate.process(heard))
                total += stem.shape[1]
                song = None if mix is None else finite(np.asarray(mix, np.float32))
                yield there.process(heard if song is None else np.concatenate([heard, song]))
            gains.push(gate.process(np.zeros((channels, 0), np.float32), last=True))
            if rate != MODEL_RATE:
                # As in a live stream, silence follows the end, until the resamplers have let go of it.
                yield there.process(np.zeros((sources, rate // 4), np.float32), last=True)

        if self.wet == 0.0:
            for chunk in chunks:
                stem, mix = chunk if isinstance(chunk, tuple) else (chunk, None)
                _check_block(stem, mix, channels, has_mix)
                yield np.array(stem, np.float32)
            return
        back = Resampler(MODEL_RATE, rate, channels)
        given = 0
        for found in self._changes(at_model_rate(), channels, has_mix):
            change = back.process(found)[:, : total - given]
            if count := change.shape[1]:
                given += count
                yield add_change(dry.pop(count), change * gains.pop(count), self.wet)
        if rest := total - given:
            # What is still missing is less than the resampler's own delay.
            change = back.process(np.zeros((channels, 0), np.float32), last=True)[:, :rest]
            change = np.pad(change, ((0, 0), (0, rest - change.shape[1])))
            yield add_change(dry.pop(rest), change * gains.pop(rest), self.wet)

    def stream(
        self, sample_rate: float, channels: int, *, has_mix: bool = False, chunk_frames: int = 4
    ) -> RepairStream:
        """A live stream: `process(block)` gives a block of the same size, `latency_samples` later; `flush()` the
        rest."""
        return RepairStream(self.delta_stream(), check_rate(sample_rate), channels, has_mix, self.wet, chunk_frames)

    def delta_stream(self) -> DeltaStream:
        """The model's own stream, for `RepairStream.swap`."""
        return DeltaStream(self.runtime, self.steps, gate=self.gate, linked=self.linked, shares=self.shares)

    def _changes(self, blocks: Iterator[np.ndarray], channels: int, has_mix: bool) -> Iterator[np.ndarray]:
        """Model-rate blocks (stem and mixture channels stacked) to the change (C, n), aligned, as many samples as
        came in."""
        delta = self.delta_stream()
        cut = Segmenter(blocks, channels, 2 * channels if has_mix else channels, delta, self.segments, self.jobs)
        if self.jobs == 1:
            for segment in cut:
                yield _segment_change(delta, segment, channels, has_mix)
            return
        with ThreadPoolExecutor(self.jobs) as pool:
            running: deque[Future[np.ndarray]] = deque()
            try:
                for segment in cut:
                    running.append(pool.submit(_segment_change, delta, segment, channels, has_mix))
                    if len(running) > self.jobs:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1






def _segment_change(delta: DeltaStream, segment: Segment, channels: int, has_mix: bool) -> np.ndarray:
    """The change (C, length) of one segment, warmed up by the sound before it."""
    hop, delay = delta.hop, delta.delay_samples
    needed = segment.before + segment.length + delay
    states = [delta.start() for _ in range(pair_count(channels))]
    wanted = np.zeros((channels, segment.length), np.float32)
    # Features and filter remember longer than the model sees: what is out of its sight is only listened to.
    listened = max(0, segment.before - delta.warmup_samples) // hop * hop
    if listened:
        heard = segment.audio[:, :listened]
        song = heard[channels:] if has_mix else None
        _, states = delta.process_channels(heard[:channels], song, states, listen_only=True)
    size = OFFLINE_FRAMES * hop
    for start in range(listened, needed, size):
        count = min(size, -(-(needed - start) // hop) * hop)
        block = segment.audio[:, start : start + count]
        if block.shape[1] < count:
            block = np.pad(block, ((0, 0), (0, count - block.shape[1])))
        change, states = delta.process_channels(block[:channels], block[channels:] if has_mix else None, states)
        # This block's change belongs to the samples from `place` on, counted from the segment's first wanted one.
        place = start - delay - segment.before
        low, high = max(0, place), min(segment.length, place + count)
        if low < high:
            wanted[:, low:high] = change[:, low - place : high - place]
    return wanted


MOST_CHANNELS = 64


def _as_sound(audio: np.ndarray, name: str) -> np.ndarray:
    sound = np.atleast_2d(np.asarray(audio))
    if sound.dtype.kind != "f":
        raise OptionError(
            f"{name} of type {sound.dtype}: give floats with a full scale of 1.0 (integers are not scaled)"
        )
    if sound.ndim != 2:
        raise OptionError(f"{name} of shape {np.shape(audio)}: give (channels, samples) or (samples,)")
    if len(sound) > MOST_CHANNELS:
        raise OptionError(f"{name} of shape {np.shape(audio)} has {len(sound)} channels; give (channels, samples)")
    return sound.astype(np.float32, copy=False)


def _check_block(stem: np.ndarray, mix: np.ndarray | None, channels: int, has_mix: bool) -> None:
    if stem.ndim != 2 or stem.shape[0] != channels:
        raise OptionError(f"chunk of shape {stem.shape}: give ({channels}, samples)")
    if (mix is not None) != has_mix:
        raise MixMismatchError(
            f"has_mix={has_mix}, but a chunk came {'with' if mix is not None else 'without'} the mixture"
        )
    if mix is not None and mix.shape != stem.shape:
        raise MixMismatchError(f"mix chunk of shape {mix.shape} and stem chunk of shape {stem.shape} must be equal")
