"""One file in, one repaired file out: same format, rate, channels and length, in memory that does not grow with it."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..engine.chain import Chain
from ..engine.dsp.fifo import Fifo
from ..engine.errors import InputError, MixMismatchError, ModelError, OutputError
from ..engine.preset import Preset
from .alignment import MAX_OFFSET_S, align_files, alignment_notes
from .audiofile import AudioInfo, AudioReader, AudioWriter, check_finite, clock, probe
from .mix_reader import MixSource
from .outfile import atomic_output, check_output, check_space, choose_format
from .samples import SampleCodec
from .tags import carries_all_tags, copy_tags

_WANTED = f"the song that the stem was separated from, with start and end within {MAX_OFFSET_S:g} s of the stem's"
Progress = Callable[[float, float], None]
"""Called with the seconds of sound done and the seconds in all."""
Block = np.ndarray | tuple[np.ndarray, np.ndarray]


class ChunkRepairer(Protocol):
    """The part of engine.repair.Repairer that files need."""

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        """Chunks (C, T) or pairs of stem and mix to chunks (C, n), as many samples in all."""
        ...


@dataclass(frozen=True)
class RenderReport:
    """What was done to one file."""

    source: Path
    target: Path
    duration_s: float
    elapsed_s: float
    change_db: float | None
    """Energy of the change against the energy of the sound, None where nothing was changed."""
    notes: tuple[str, ...] = ()

    @property
    def speed(self) -> float:
        """How many seconds of sound went through in one second."""
        return self.duration_s / max(self.elapsed_s, 1e-9)

    def render(self) -> str:
        """One line for people."""
        change = "unchanged" if self.change_db is None else f"change {self.change_db:+.1f} dB"
        parts = [
            f"{clock(self.duration_s)} in {self.elapsed_s:.1f} s",
            f"{self.speed:.1f}x real time",
            change,
            *self.notes,
        ]
        return f"{self.source} -> {self.target}: {', '.join(parts)}"


def check_mix(stem: AudioInfo, mix: AudioInfo, what: str = "") -> None:
    """Raises MixMismatchError where a mixture does not belong to a stem; `what` it is, if no mixture."""
    if mix.sample_rate != stem.sample_rate:
        raise MixMismatchError(
            f"{mix.path} has {mix.sample_rate} Hz and {stem.path} has {stem.sample_rate} Hz; "
            f"convert {what or 'the mix'} to {stem.sample_rate} Hz"
        )
    if mix.channels != stem.channels:
        raise MixMismatchError(
            f"{mix.path} has {_count(mix.channels)} and {stem.path} has {_count(stem.channels)}; "
            f"convert {what or 'the mix'} to {_count(stem.channels)}"
        )
    if abs(mix.samples - stem.samples) > MAX_OFFSET_S * stem.sample_rate:
        wanted = f"{what}, with the same start and end" if what else _WANTED
        raise MixMismatchError(
            f"{mix.path} lasts {clock(mix.duration_s)} and {stem.path} lasts {clock(stem.duration_s)}; give {wanted}"
        )


def _count(channels: int) -> str:
    return {1: "1 channel (mono)", 2: "2 channels (stereo)"}.get(channels, f"{channels} channels")


def render_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    repairer: ChunkRepairer,
    *,
    mix: str | os.PathLike[str] | None = None,
    preset: Preset | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RenderReport:
    """Repair `source` into `target`.

    mix: the song that the stem was separated from; it may be up to half a second longer or shorter, and start as much
    before or after the stem (align.py); where the stem cannot be heard in it, it is left out.
    preset: its chains run before (on the mix too, so that both still belong together) and after the repair.
    progress: called with the seconds of sound done and the seconds in all.
    Raises AudioFileError, MixMismatchError, OutputExistsError, OptionError (file type), OutputError, ModelError.
    Nothing is left under `target`'s name unless all went well.
    """
    started_s = time.perf_counter()
    source, target = Path(source), Path(target)
    inputs = [source] if mix is None else [source, Path(mix)]
    info = probe(source)
    check_output(target, inputs, overwrite=overwrite)
    chosen = choose_format(info, target)
    notes = [chosen.note]
    mix_info = None
    if mix is not None:
        mix_info = probe(Path(mix))
        check_mix(info, mix_info)
        check_finite(mix_info)
    check_finite(info)
    mixture = None
    if mix_info is not None:
        alignment = align_files(info, mix_info)
        notes += alignment_notes(alignment, info, mix_info)
        if alignment.heard:
            mixture = alignment.open(mix_info, preset.before if preset is not None else ())
    with atomic_output(target, inputs, overwrite=overwrite) as part:
        check_space(info, chosen, target)
        keeps_tags = carries_all_tags(info, chosen.container)
        tally = _Tally()
        with (
            AudioWriter(
                part, info, chosen.container, chosen.subtype, strings_from=None if keeps_tags else source
            ) as writer,
            contextlib.closing(_repaired(info, mixture, repairer, preset)) as pairs,
        ):
            for original, audio in pairs:
                tally.add(original, audio, info)
                same_type = chosen.subtype == info.subtype
                encoded = writer.codec.encode(audio, original if same_type else None)
                tally.clipped_samples += encoded.clipped_samples
                writer.write(encoded.native)
                if progress is not None:
                    progress(tally.samples / info.sample_rate, info.duration_s)
            if writer.lost_tags:
                notes.append(f"{chosen.container} files hold no tags: title, artist and the like are left out")
        if keeps_tags:
            notes.append(copy_tags(info, part, chosen.subtype))
        _check_written(part, info, target)
    notes.append(tally.clip_note())
    elapsed_s = time.perf_counter() - started_s
    return RenderReport(source, target, info.duration_s, elapsed_s, tally.change_db(), tuple(n for n in notes if n))


def _repaired(
    info: AudioInfo, mixture: MixSource | None, repairer: ChunkRepairer, preset: Preset | None
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Pairs of the file's own samples (C, n) as stored and the repaired ones (C, n) float32."""
    links = (preset.before, preset.after) if preset is not None else ((), ())
    before = Chain(links[0], info.sample_rate, info.channels)
    after = Chain(links[1], info.sample_rate, info.channels)
    waiting = Fifo()

    def chunks() -> Iterator[Block]:
        with AudioReader(info) as reader:
            for native in reader.blocks():
                waiting.push(native)
                audio = before(reader.codec.decode(native))
                yield audio if mixture is None else (audio, mixture.beside(audio))

    repaired = repairer.process_chunks(chunks(), info.sample_rate, info.channels, has_mix=mixture is not None)
    done = 0
    try:
        for audio in repaired:
            if audio.shape[1] == 0:
                continue
            if not np.isfinite(audio).all():
                place = clock(done / info.sample_rate)
                raise ModelError(
                    f"{info.path}: the model gave values that are not numbers near {place}; nothing was written"
                )
            done += audio.shape[1]
            yield waiting.pop(audio.shape[1]), after(audio)
    finally:
        if isinstance(repaired, Generator):
            repaired.close()  # its threads end here and not whenever the last reference goes
    assert done == info.samples, f"{done} samples came out of the repair and {info.samples} went in"


@dataclass
class _Tally:
    """Sums over a file while it is written."""

    samples: int = 0
    clipped_samples: int = 0
    peak: float = 0.0
    energy: float = 0.0
    change: float = 0.0

    def add(self, original: np.ndarray, audio: np.ndarray, info: AudioInfo) -> None:
        dry = SampleCodec(info.subtype).decode(original).astype(np.float64)
        self.samples += audio.shape[1]
        self.energy += float(np.sum(dry * dry))
        self.change += float(np.sum((audio - dry) ** 2))
        self.peak = max(self.peak, float(np.abs(audio).max(initial=0.0)))

    def change_db(self) -> float | None:
        if self.change == 0:
            return None
        return 10 * math.log10(self.change / self.energy) if self.energy else math.inf

    def clip_note(self) -> str:
        if not self.clipped_samples:
            return ""
        over_db = 20 * math.log10(self.peak)
        return (
            f"{self.clipped_samples} samples were over full scale (by up to {over_db:.1f} dB) and were clipped; "
            "give the stem as 32-bit float WAV, which keeps them, or turn it down first"
        )


def _check_written(part: Path, info: AudioInfo, target: Path) -> None:
    """Read the result's header before it gets its name: a disk that lost the end must not pass for a success."""
    try:
        written = probe(part)
    except InputError as error:
        raise OutputError(f"{target}: was not written whole ({error}); check the disk") from error
    if (written.samples, written.sample_rate, written.channels) != (info.samples, info.sample_rate, info.channels):
        raise OutputError(
            f"{target}: this file type cannot keep the length ({written.samples} samples instead of {info.samples}); "
            "use .wav"
        )
