"""A full set of stems, after its repair: made to sum to the song again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.dsp.consistency import Coverage, MixConsistency
from ..engine.dsp.fifo import Fifo
from ..engine.errors import OutputError
from .alignment import MAX_OFFSET_S, Alignment, align_files, early_source, estimate_alignment
from .analysis import analyse_file
from .audiofile import AudioReader, probe
from .batch import RenderJob
from .mix_reader import MixSource
from .render import Block, Progress, render_file
from .samples import LOSSY

MISSING_DB = -20.0  # of the song's energy, what a full set may lack: more is a stem, be it a quiet one
HIGHEST_HZ = 10000.0  # above, separators leave out what they have no model for


@dataclass(frozen=True)
class SetReport:
    """How a set was made to sum to its song. missing_db: by how much the stems missed the song before any repair, or
    after it where that is less, relative to the song, None where they cannot be heard in it; rest_db: afterwards, None
    where the set was left as it is. at_other_level: which stems are, and how much louder the song has each."""

    stems: int
    missing_db: float | None
    rest_db: float | None
    notes: tuple[str, ...] = ()
    at_other_level: tuple[tuple[str, float], ...] = ()

    def render(self) -> str:
        """One line for people."""
        if self.missing_db is None:
            return (
                f"{self.stems} stems cannot be heard in this song: they were repaired one by one, and not made to sum "
                "to it"
            )
        if self.at_other_level:
            each = ((name, abs(db), "softer" if db > 0 else "louder") for name, db in self.at_other_level)
            levels = " and ".join(f"{name} is {db:.1f} dB {how}" for name, db, how in each)
            return (
                f"{levels} than in the song: {self.stems} stems were repaired one by one, and not made to sum to it; "
                "give all stems at their own level"
            )
        if self.rest_db is None:
            return (
                f"{self.stems} stems do not add up to the song (what differs has {self.missing_db:.1f} dB of it): they "
                "were repaired one by one, and not made to sum to it; give all stems of the song, at their own level"
            )
        return ", ".join([f"{self.stems} stems sum to the song, to {self.rest_db:.0f} dB", *self.notes])


def is_set(jobs: Sequence[RenderJob], mix: Path) -> bool:
    """Whether these files may be a set of stems of a song: two or more of one length, which is the song's within
    MAX_OFFSET_S, of its rate and channels."""
    if len(jobs) < 2:
        return False
    song = probe(mix)
    infos = [probe(job.source) for job in jobs]
    return (
        all((i.sample_rate, i.channels) == (song.sample_rate, song.channels) for i in infos)
        and len({i.samples for i in infos}) == 1
        and abs(infos[0].samples - song.samples) <= MAX_OFFSET_S * song.sample_rate
    )


def complete_set(jobs: Sequence[RenderJob], mix: Path, *, progress: Progress | None = None) -> SetReport:
    """Make the repaired stems (the jobs' targets) sum to the song, where the unrepaired ones (the sources) leave out
    little of it. The targets are replaced together, after all has been written. Raises AudioFileError, OutputError."""
    sources, targets = [job.source for job in jobs], [job.target for job in jobs]
    alignment = _alignment(sources, mix)
    if not alignment.heard:
        return SetReport(len(jobs), None, None)
    missing_db = coverage(sources, mix, alignment, HIGHEST_HZ).missing_db
    if missing_db > MISSING_DB:  # of what bleeds into several stems there is too much, until it is repaired
        missing_db = min(missing_db, coverage(targets, mix, alignment, HIGHEST_HZ).missing_db)
    if missing_db > MISSING_DB:
        levels = [(source.name, align_files(probe(source), probe(mix)).difference_db) for source in sources]
        return SetReport(len(jobs), missing_db, None, at_other_level=tuple((name, db) for name, db in levels if db))
    severities = [analyse_file(source, mix, alignment=alignment).strength for source in sources]
    with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".stemprover-set-") as folder:
        made, notes = [], list[str]()
        for number, target in enumerate(targets):
            place = Path(folder) / f"{number}{target.suffix}"
            share = _Share(targets, number, severities, mix, alignment)
            report = render_file(target, place, share, progress=progress)
            notes += [f"{target.name}: {note}" for note in report.notes]
            made.append(place)
        try:
            for place, target in zip(made, targets, strict=True):
                shutil.copymode(target, place)
                place.replace(target)
        except OSError as error:
            raise OutputError(
                f"{target}: cannot be replaced ({error.strerror}); it is repaired, but the stems do not sum to the song"
            ) from error
    if probe(mix).subtype in LOSSY:
        notes.insert(0, "with its coding noise, since it is lossy: give it as WAV or FLAC, or --no-sum")
    return SetReport(len(jobs), missing_db, coverage(targets, mix, alignment).missing_db, tuple(notes))


def coverage(
    stems: Sequence[Path], mix: Path, alignment: Alignment, highest_hz: float | None = None
) -> Coverage:
    """What the stems have of the song, up to a frequency."""
    found = Coverage(probe(mix).sample_rate, highest_hz)
    with contextlib.closing(_together(stems, mix, alignment)) as blocks:
        for sounds, song in blocks:
            found.add(sounds, song)
    return found


class _Share:
    """In place of a model (render.ChunkRepairer): gives one stem of a set its share of what is missing."""

    def __init__(
        self, stems: Sequence[Path], number: int, severities: Sequence[float], mix: Path, alignment: Alignment
    ) -> None:
        self.stems, self.number, self.severities = stems, number, severities
        self.mix, self.alignment = mix, alignment

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        """The stem with its share (C, m), in step with its own samples (C, n), which are read from all stems."""
        share, waiting = MixConsistency(self.severities, channels), Fifo()
        with contextlib.closing(_together(self.stems, self.mix, self.alignment)) as blocks:
            for _, (sounds, song) in zip(chunks, blocks, strict=True):
                waiting.push(sounds[self.number])
                added = share.process(sounds, song)[self.number]
                if added.shape[1]:
                    yield waiting.pop(added.shape[1]) + added
        added = share.finish()[self.number]
        if added.shape[1]:
            yield waiting.pop(added.shape[1]) + added


def _alignment(stems: Sequence[Path], mix: Path) -> Alignment:
    """Where the song lies beside the stems, by what they are together."""
    with contextlib.closing(_stems(stems)) as blocks:
        sums = (sounds.sum(axis=0) for sounds in blocks)
        return estimate_alignment(sums, early_source(probe(mix)), probe(mix).sample_rate).at_own_level


def _together(
    stems: Sequence[Path], mix: Path, alignment: Alignment
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Blocks of all stems (S, C, n) and of the song (C, n); where it has no samples, of the stems' sum, which then
    lacks nothing."""
    song = alignment.open(probe(mix))
    with contextlib.closing(_stems(stems)) as blocks:
        for sounds in blocks:
            yield sounds, song.beside(sounds.sum(axis=0))


def _stems(stems: Sequence[Path]) -> Generator[np.ndarray, None, None]:
    """Blocks of all stems (S, C, n), as long as the first."""
    others = [MixSource(probe(path)) for path in stems[1:]]
    with AudioReader(probe(stems[0])) as reader:
        for native in reader.blocks():
            first = reader.codec.decode(native)
            yield np.stack([first, *(source.take(first.shape[1]) for source in others)])
