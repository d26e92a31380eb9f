"""Repairs one file into another of the same format, rate, channels and length, with constant memory."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..engine.chain import Chain
from ..engine.dsp.fifo import Fifo
from ..engine.errors import InputError, ModelError, OptionError, OutputError
from ..engine.preset import AUTO, Preset
from ..engine.repair import Repairer
from .analysis import analyse_pair
from .audiofile import AudioInfo, AudioReader, AudioWriter, clock, probe
from .formats import check_space, choose_format
from .outfile import atomic_output, check_output
from .pair import StemAndMix
from .samples import SampleCodec
from .tags import carries_all_tags, copy_tags, left_out

Progress = Callable[[float, float], None]
"""Called with the seconds of audio done and the seconds in total."""
Block = np.ndarray | tuple[np.ndarray, np.ndarray]


class ChunkRepairer(Protocol):
    """The part of engine.repair.Repairer that files need."""

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False,
        role: str | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Chunks (C, T), or pairs of stem and mix, to repaired chunks (C, n), with the same total length. role: of the
        stem."""
        ...


@dataclass(frozen=True)
class RenderReport:
    """What was done to one file. elapsed_s: the time that took, checks and alignment included."""

    source: Path
    target: Path
    duration_s: float
    elapsed_s: float
    correction_db: float | None
    """Energy of the correction relative to the stem's, None if nothing was changed."""
    notes: tuple[str, ...] = ()
    mix_left_out: bool = False

    @property
    def speed(self) -> float:
        """Seconds of audio repaired per second."""
        return self.duration_s / max(self.elapsed_s, 1e-9)

    def render(self) -> str:
        """One line for users."""
        change = "unchanged" if self.correction_db is None else f"correction {self.correction_db:+.1f} dB"
        parts = [
            f"{clock(self.duration_s)} in {self.elapsed_s:.1f} s",
            f"{self.speed:.1f}x real time",
            change,
            *self.notes,
        ]
        return f"{self.source} -> {self.target}: {', '.join(parts)}"


def render_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    repairer: ChunkRepairer | Preset | str | os.PathLike[str] | None = None,
    *,
    mix: str | os.PathLike[str] | None = None,
    rest: str | os.PathLike[str] | None = None,
    preset: Preset | None = None,
    overwrite: bool = False,
    require_mix: bool = False,
    role: str | None = None,
    progress: Progress | None = None,
) -> RenderReport:
    """Repair `source` into `target`.

        render_file("vocals.wav", "repaired.wav", mix="song.wav")             # auto chooses the preset
        render_file("vocals.wav", "repaired.wav", "bleed", mix="song.wav")
        render_file("vocals.wav", "repaired.wav", Repairer("bleed", wet=0.5), mix="song.wav")

    repairer: a Repairer, to load the model once for many files or to set more, or what it takes as a preset. By default
    auto with the mix and general without.
    mix: the mix the stem was separated from. It may be up to half a second longer or shorter and start up to half a
    second earlier or later; where it does not contain the stem, it is left out (proof.py).
    rest: in place of the mix, all of the song but the stem, in step with it.
    require_mix: a mix that has to be left out is an error (MixLeftOutError).
    role: what the stem is (vocals, drums, bass, guitar, keys, accompaniment, other), if its name does not say so.
    preset: its plugins run before the repair (also on the mix, so that the two still match) and after it; by default
    the Repairer's own.
    progress: called with the seconds of audio done and the seconds in total.
    Raises AudioFileError, MixMismatchError, MixLeftOutError, OutputExistsError, OptionError (file type), PresetError,
    OutputError, ModelError.
    The target appears only if everything succeeded.
    """
    if mix is not None and rest is not None:
        raise OptionError(f"mix={mix} and rest={rest} exclude each other; pass one of them")
    source, target = Path(source), Path(target)
    beside = [Path(path) for path in (mix, rest) if path is not None]
    info = probe(source)
    check_output(target, [source, *beside], overwrite=overwrite)
    choose_format(info, target)  # find out about a wrong file type before the alignment, which takes time
    if repairer is None:
        repairer = AUTO if beside else "general"
    if isinstance(repairer, str | os.PathLike | Preset):
        repairer = Repairer(repairer)
    mix_path, rest_path = (None if path is None else beside[0] for path in (mix, rest))
    pair = StemAndMix.open(info, mix_path, rest=rest_path, role=role)
    if require_mix:
        pair.require_mix()
    if isinstance(repairer, Repairer):
        repairer = repairer.choose(analyse_pair(pair)) if repairer.is_auto else repairer
        preset = preset or repairer.preset
    report = render_pair(pair, target, repairer, preset=preset, overwrite=overwrite, progress=progress)
    return replace(report, notes=(preset.note, *report.notes)) if preset and preset.note else report


def render_pair(
    pair: StemAndMix,
    target: Path,
    repairer: ChunkRepairer,
    *,
    preset: Preset | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    written: Callable[[Path], None] | None = None,
) -> RenderReport:
    """`render_file` for a stem and mix that are already aligned. written: called with the complete file, before it gets
    its name."""
    started_s = time.perf_counter()
    info = pair.stem
    chosen = choose_format(info, target)
    notes = [chosen.note, *info.notes, *_mix_notes(pair), *pair.notes]
    with atomic_output(target, pair.paths, overwrite=overwrite) as part:
        check_space(info, chosen, target)
        keeps_tags = carries_all_tags(info, chosen.container)
        totals = _Totals()
        with (
            AudioWriter(
                part, info, chosen.container, chosen.subtype, strings_from=None if keeps_tags else info
            ) as writer,
            contextlib.closing(_repaired(pair, repairer, preset)) as repaired,
        ):
            for original, audio in repaired:
                totals.add(original, audio, info)
                same_type = chosen.subtype == info.subtype
                encoded = writer.codec.encode(audio, original if same_type else None)
                totals.clipped_samples += encoded.clipped_samples
                writer.write(encoded.native)
                if progress is not None:
                    progress(totals.samples / info.sample_rate, info.duration_s)
            if writer.lost_tags:
                notes.append(f"{chosen.container} files have no tags: title, artist and the like were dropped")
        notes.append(copy_tags(info, part, chosen.subtype) if keeps_tags else left_out(info, chosen.container))
        _check_written(part, info, target)
        if written is not None:
            written(part)
    notes.append(totals.clip_note())
    elapsed_s = pair.elapsed_s + time.perf_counter() - started_s
    return RenderReport(
        info.path, target, info.duration_s, elapsed_s, totals.correction_db(), tuple(n for n in notes if n),
        pair.mix_left_out,
    )  # fmt: skip


def _mix_notes(pair: StemAndMix) -> list[str]:
    return [f"the mix: {note}" for note in pair.mix.notes] if pair.mix is not None else []


def _repaired(
    pair: StemAndMix, repairer: ChunkRepairer, preset: Preset | None
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Pairs of the file's own samples (C, n), as stored, and the repaired ones (C, n) in float32."""
    info = pair.stem
    plugins_before, plugins_after = (preset.before, preset.after) if preset is not None else ((), ())
    before, before_mix, after = (
        Chain(plugins, info.sample_rate, info.channels) if plugins else _unchanged
        for plugins in (plugins_before, plugins_before, plugins_after)
    )
    mix = pair.open_mix()
    waiting, codec = Fifo(), SampleCodec(info.subtype)

    def chunks() -> Iterator[Block]:
        with AudioReader(info) as reader:
            for native in reader.blocks():
                waiting.push(native)
                audio = before(pair.prepare(reader.codec.decode(native)))
                yield audio if mix is None else (audio, before_mix(mix.take(audio.shape[1])))

    repaired = repairer.process_chunks(
        chunks(), info.sample_rate, info.channels, has_mix=mix is not None, role=pair.role
    )
    done = 0
    try:
        for audio in repaired:
            if audio.shape[1] == 0:
                continue
            if not np.isfinite(audio).all():
                raise ModelError(
                    f"{info.path}: the model returned non-finite samples (NaN or infinite) near "
                    f"{clock(done / info.sample_rate)}; nothing was written"
                )
            done += audio.shape[1]
            native = waiting.pop(audio.shape[1])
            yield native, pair.restore(after(audio), codec.decode(native))
    finally:
        if isinstance(repaired, Generator):
            repaired.close()  # ends its threads now, not whenever the last reference goes
    assert done == info.samples, f"{done} samples came out of the repair and {info.samples} went in"


def _unchanged(block: np.ndarray) -> np.ndarray:
    """In place of plugins."""
    return block


@dataclass
class _Totals:
    """Sums over a file while it is written."""

    samples: int = 0
    clipped_samples: int = 0
    peak: float = 0.0
    energy: float = 0.0
    correction: float = 0.0

    def add(self, original: np.ndarray, audio: np.ndarray, info: AudioInfo) -> None:
        dry = SampleCodec(info.subtype).decode(original).astype(np.float64)
        self.samples += audio.shape[1]
        self.energy += float(np.sum(dry * dry))
        self.correction += float(np.sum((audio - dry) ** 2))
        self.peak = max(self.peak, float(np.abs(audio).max(initial=0.0)))

    def correction_db(self) -> float | None:
        if self.correction == 0:
            return None
        return 10 * math.log10(self.correction / self.energy) if self.energy else math.inf

    def clip_note(self) -> str:
        if not self.clipped_samples:
            return ""
        return (
            f"{self.clipped_samples} samples went over full scale (by up to {20 * math.log10(self.peak):.1f} dB) and "
            "were clipped; turn the stem down first, or convert it to 32-bit float WAV, which does not clip"
        )


def _check_written(part: Path, info: AudioInfo, target: Path) -> None:
    """Read the result back before it gets its name, because a failing disk may lose the end without an error."""
    try:
        written = probe(part)
    except InputError as error:
        raise OutputError(f"{target} was not written completely ({error}); check the disk") from error
    if (written.samples, written.sample_rate, written.channels) != (info.samples, info.sample_rate, info.channels):
        raise OutputError(
            f"{target}: this file type changed the length to {written.samples} samples (from {info.samples}); use .wav"
        )
