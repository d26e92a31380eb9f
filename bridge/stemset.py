"""A full set of stems, after its repair: made to sum to the song again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.consistency import Coverage, MixConsistency
from ..engine.errors import OutputError
from ..engine.fifo import Fifo
from .analyze import analyse_file
from .audiofile import AudioInfo, AudioReader, probe
from .plan import RenderJob
from .render import Block, MixSource, Progress, render_file

MISSING_DB = -14.0  # of the song's energy, what a full set may lack
HIGHEST_HZ = 10000.0  # above, separators leave out what they have no model for


@dataclass(frozen=True)
class SetReport:
    """How a set was made to sum to its song. missing_db: what the stems lacked before any repair, relative to the song;
    rest_db: afterwards, None where the set was left as it is."""

    stems: int
    missing_db: float
    rest_db: float | None
    notes: tuple[str, ...] = ()

    def render(self) -> str:
        """One line for people."""
        if self.rest_db is None:
            return (
                f"{self.stems} stems lack a part of the song ({self.missing_db:.1f} dB of it): they were repaired one "
                "by one, and not made to sum to it; give all stems of the song for that"
            )
        return ", ".join([f"{self.stems} stems sum to the song, to {self.rest_db:.0f} dB", *self.notes])


def is_set(jobs: Sequence[RenderJob], mix: Path) -> bool:
    """Whether these files may be a set of stems of a song: two or more, of its rate, channels and length."""
    if len(jobs) < 2:
        return False
    song = probe(mix)
    infos = [probe(job.source) for job in jobs]
    return all((i.sample_rate, i.channels, i.samples) == (song.sample_rate, song.channels, song.samples) for i in infos)


def complete_set(jobs: Sequence[RenderJob], mix: Path, *, progress: Progress | None = None) -> SetReport:
    """Make the repaired stems (the jobs' targets) sum to the song, where the unrepaired ones (the sources) leave out
    little of it. The targets are replaced together, after all has been written. Raises AudioFileError, OutputError."""
    sources, targets = [job.source for job in jobs], [job.target for job in jobs]
    missing_db = coverage(sources, mix, HIGHEST_HZ).missing_db
    if missing_db > MISSING_DB:
        return SetReport(len(jobs), missing_db, None)
    severities = [_severity(source, mix) for source in sources]
    with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".stemprover-set-") as folder:
        made, notes = [], list[str]()
        for number, target in enumerate(targets):
            place = Path(folder) / f"{number}{target.suffix}"
            share = _Share(targets, number, severities)
            report = render_file(target, place, share, mix=mix, progress=progress)
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
    return SetReport(len(jobs), missing_db, coverage(targets, mix).missing_db, tuple(notes))


def coverage(stems: Sequence[Path], mix: Path, highest_hz: float | None = None) -> Coverage:
    """What the stems have of the song, up to a frequency."""
    found = Coverage(probe(mix).sample_rate, highest_hz)
    with contextlib.closing(_together(stems, mix)) as blocks:
        for sounds, song in blocks:
            found.add(sounds, song)
    return found


def _severity(source: Path, mix: Path) -> float:
    """Of the strongest fault that the detectors find."""
    return max((finding.strength for finding in analyse_file(source, mix).found), default=0.0)


class _Share:
    """In place of a model (render.ChunkRepairer): gives one stem of a set its share of what is missing."""

    def __init__(self, stems: Sequence[Path], number: int, severities: Sequence[float]) -> None:
        self.stems, self.number, self.severities = stems, number, severities

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        """Pairs of the stem's and the song's samples (C, n) to the stem with its share (C, m)."""
        others = [MixSource(probe(path), ()) for path in self.stems]
        share, waiting = MixConsistency(self.severities, channels), Fifo()
        for chunk in chunks:
            stem, song = chunk
            sounds = np.stack([source.take(stem.shape[1]) for source in others])
            waiting.push(stem)
            added = share.process(sounds, song)[self.number]
            if added.shape[1]:
                yield waiting.pop(added.shape[1]) + added
        added = share.finish()[self.number]
        if added.shape[1]:
            yield waiting.pop(added.shape[1]) + added


def _together(stems: Sequence[Path], mix: Path) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Blocks of all stems (S, C, n) and of the song (C, n)."""
    sources = [MixSource(probe(path), ()) for path in stems]
    info: AudioInfo = probe(mix)
    with AudioReader(info) as reader:
        for native in reader.blocks():
            song = reader.codec.decode(native)
            yield np.stack([source.take(song.shape[1]) for source in sources]), song
