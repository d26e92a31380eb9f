"""Makes a complete set of repaired stems sum to the mix again."""

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
from ..engine.mix.fit import MixFit
from ..engine.mix.timing import TimeMap
from .alignment import Alignment, estimate_alignment, open_early
from .analysis import analyse_pair
from .audiofile import AudioInfo, AudioReader, probe
from .mix_reader import MixReader, match_channels
from .pair import StemAndMix
from .proof import level_db
from .render import Block, Progress, render_file
from .samples import LOSSY

#: Energy of what a complete set may leave out of the mix, relative to the mix. More than this is a missing stem, even
#: if a quiet one.
MAX_MISSING_DB = -20.0
HIGHEST_HZ = 10000.0  # separators often leave out what is above


@dataclass(frozen=True)
class SetReport:
    """How well a set of stems sums to its mix.

    missing_db: energy of mix minus stems, relative to the mix, before the repair, or after it if that is lower; None if
    the stems are not in the mix. residual_db: the same for the final stems; None if they were left as repaired.
    level_differences: stems at another level than in the mix, and how much louder the mix has each (dB).
    """

    stems: int
    missing_db: float | None
    residual_db: float | None
    notes: tuple[str, ...] = ()
    level_differences: tuple[tuple[str, float], ...] = ()

    def render(self) -> str:
        """One line for users."""
        not_summed = f"the {self.stems} stems were repaired one by one and may not sum to the mix"
        if self.missing_db is None:
            return f"stems not found in the mix: {not_summed}; is it the right song?"
        if self.level_differences:
            levels = " and ".join(
                f"{name} is {abs(db):.1f} dB {'quieter' if db > 0 else 'louder'}" for name, db in self.level_differences
            )
            return f"{levels} than in the mix: {not_summed}; use all stems at their original level"
        if self.residual_db is None:
            return (
                f"the stems do not add up to the mix (the difference is at {self.missing_db:.1f} dB): {not_summed}; "
                "use all stems of the song, at their original level"
            )
        return ", ".join([f"the {self.stems} stems sum to the mix (within {self.residual_db:.0f} dB)", *self.notes])


def is_set(pairs: Sequence[StemAndMix]) -> bool:
    """Whether stems with a common mix may be a complete set: two or more, all of the same length."""
    return len(pairs) >= 2 and len({pair.stem.samples for pair in pairs}) == 1


def complete_set(
    pairs: Sequence[StemAndMix], targets: Sequence[Path], *, progress: Progress | None = None
) -> SetReport:
    """Make repaired stems sum to their mix, if the unrepaired ones leave out little of it.

    pairs: the unrepaired stems, all with the same mix. targets: the repaired stems. They are all replaced together,
    after everything is written. Raises AudioFileError, OutputError.
    """
    mix, sources, repaired = pairs[0].mix, [pair.stem for pair in pairs], [probe(target) for target in targets]
    assert mix is not None, "a set is made to sum to a mix"
    alignment = _align_sum(sources, mix)
    if not alignment.found:
        return SetReport(len(pairs), None, None)
    missing_db = coverage(sources, mix, alignment, HIGHEST_HZ).missing_db
    if missing_db > MAX_MISSING_DB:  # stems with much bleed have too much in common until they are repaired
        missing_db = min(missing_db, coverage(repaired, mix, alignment, HIGHEST_HZ).missing_db)
    if missing_db > MAX_MISSING_DB:
        levels = [(pair.stem.path.name, level_db(pair.fit)) for pair in pairs if pair.fit]
        return SetReport(len(pairs), missing_db, None, level_differences=tuple((name, db) for name, db in levels if db))
    fit = MixFit.shifted(sources[0].channels, alignment.offset_samples, alignment.gain)
    severities = [analyse_pair(StemAndMix(source, mix, fit)).strength for source in sources]
    with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".stemprover-set-") as folder:
        summed, notes = list[Path](), list[str]()
        for number, target in enumerate(targets):
            place = Path(folder) / f"{number}{target.suffix}"
            add_share = _AddShare(repaired, number, severities, mix, alignment)
            report = render_file(target, place, add_share, progress=progress)
            notes += [f"{target.name}: {note}" for note in report.notes]
            summed.append(place)
        try:
            for place, target in zip(summed, targets, strict=True):
                shutil.copymode(target, place)
                place.replace(target)
        except OSError as error:
            raise OutputError(
                f"{target} cannot be replaced ({error.strerror}); it is repaired, but the stems do not sum to the mix"
            ) from error
    if mix.subtype in LOSSY:
        notes.insert(0, "including the coding noise of this lossy mix: use a WAV or FLAC mix, or --no-sum")
    final = [probe(target) for target in targets]
    return SetReport(len(pairs), missing_db, coverage(final, mix, alignment).missing_db, tuple(notes))


def coverage(
    stems: Sequence[AudioInfo], mix: AudioInfo, alignment: Alignment, highest_hz: float | None = None
) -> Coverage:
    """How much of the mix the stems cover, up to a frequency."""
    measured = Coverage(mix.sample_rate, highest_hz)
    with contextlib.closing(_read_stems_and_mix(stems, mix, alignment)) as blocks:
        for stem_blocks, mix_block in blocks:
            measured.add(stem_blocks, mix_block)
    return measured


class _AddShare:
    """Stands in for the model (render.ChunkRepairer): adds to one stem its share of what the set lacks."""

    def __init__(
        self,
        stems: Sequence[AudioInfo],
        number: int,
        severities: Sequence[float],
        mix: AudioInfo,
        alignment: Alignment,
    ) -> None:
        self.stems, self.number, self.severities = stems, number, severities
        self.mix, self.alignment = mix, alignment

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False
    ) -> Iterator[np.ndarray]:
        """The stem plus its share (C, m), in step with the stem's own chunks (C, n); reads all stems itself."""
        consistency, waiting = MixConsistency(self.severities, channels), Fifo()
        with contextlib.closing(_read_stems_and_mix(self.stems, self.mix, self.alignment)) as blocks:
            for _, (stem_blocks, mix_block) in zip(chunks, blocks, strict=True):
                waiting.push(stem_blocks[self.number])
                share = consistency.process(stem_blocks, mix_block)[self.number]
                if share.shape[1]:
                    yield waiting.pop(share.shape[1]) + share
        share = consistency.finish()[self.number]
        if share.shape[1]:
            yield waiting.pop(share.shape[1]) + share


def _align_sum(stems: Sequence[AudioInfo], mix: AudioInfo) -> Alignment:
    """Align the mix with the sum of the stems."""
    with contextlib.closing(_read_stems(stems)) as blocks:
        sums = (stem_blocks.sum(axis=0) for stem_blocks in blocks)
        return estimate_alignment(sums, open_early(mix), mix.sample_rate).at_own_level


def _read_stems_and_mix(
    stems: Sequence[AudioInfo], mix: AudioInfo, alignment: Alignment
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Blocks of all stems (S, C, n) and of the mix (C, n). Where the mix has no samples, the sum of the stems takes its
    place, which leaves nothing to add."""
    reader, position = MixReader(mix, TimeMap.constant(alignment.offset_samples)), 0
    with contextlib.closing(_read_stems(stems)) as blocks:
        for stem_blocks in blocks:
            total = stem_blocks.sum(axis=0)
            count = total.shape[1]
            beside = np.float32(1 / alignment.gain) * match_channels(reader.take(count), len(total))
            yield stem_blocks, np.where(reader.covers(position, count), beside, total)
            position += count


def _read_stems(stems: Sequence[AudioInfo]) -> Generator[np.ndarray, None, None]:
    """Blocks of all stems (S, C, n), as long as the first stem."""
    others = [MixReader(info) for info in stems[1:]]
    with AudioReader(stems[0]) as reader:
        for native in reader.blocks():
            first = reader.codec.decode(native)
            yield np.stack([first, *(other.take(first.shape[1]) for other in others)])
