"""Makes a complete set of repaired stems sum to the mix again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import numpy as np

from ..engine.dsp.consistency import MixConsistency
from ..engine.dsp.fifo import Fifo
from ..engine.errors import OutputError
from ..engine.mix.fit import MixFit
from ..engine.mix.null import Cells, Null, NullMeter
from ..engine.stem_names import MIX, redundant_stems, stem_of
from .analysis import analyse_pair
from .audiofile import AudioInfo, AudioWriter, clock, probe
from .formats import check_space, choose_format
from .mix_reader import files_of
from .outfile import atomic_output
from .pair import StemAndMix
from .placement import Placement, common_fit, read_beside
from .render import Block, Progress, render_file
from .samples import LOSSY

#: Energy of what a complete set may leave out of the mix, relative to the mix. More than this is a missing stem, even
#: if a quiet one, or bleed.
MAX_MISSING_DB = -20.0
#: A stem is missing if what the stems leave is louder than this, and most of the mix in this part of it.
MAX_ABSENT_DB, MAX_ABSENT = -35.0, 0.4
TOLD_DB = -60.0  # what stems leave is described if it is louder


@dataclass(frozen=True)
class SetReport:
    """How well a set of stems sums to its mix.

    before: what the stems left of the mix, as they were; None if they are not in the mix. after: the same for the
    results, with the residual if there is one; None if they were left as repaired. corrections: what was wrong with a
    stem, and is corrected. absent: stems that were not found in the mix.
    """

    stems: int
    before: Null | None
    after: Null | None = None
    corrections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    residual: str = ""

    def render(self) -> str:
        """One line for users."""
        count = f"{self.stems} stems" if self.stems > 1 else "stem"
        not_summed = f"the {count} were repaired one by one and may not sum to the mix"
        if self.before is None:
            lost = f", and {self.residual} was not written" if self.residual else ""
            return f"stems not found in the mix: {not_summed}{lost}; is it the right song?"
        absent = [f"{name} was not found in it" for name in self.absent]
        if self.after is None:
            hint = "use all stems of the song" if self.before.is_missing else "stems with bleed do not add up"
            parts = [f"the stems do not add up to the mix: {_described(self.before)}", *absent]
            return f"{', '.join(parts)}: {not_summed}; {hint}, or write what no stem holds with --residual FILE"
        parts = [
            f"the {count}{' and ' + self.residual if self.residual else ''} sum to the mix (to {self.after.db:.0f} dB; "
            f"before: {_described(self.before)})"
        ]
        return ", ".join([*parts, *absent, *(f"{text}: corrected" for text in self.corrections), *self.notes])


def _described(null: Null) -> str:
    """What stems leave of their mix, how much, and where."""
    if null.db < TOLD_DB:
        return f"{null.db:.0f} dB"
    where = [f"from {null.hz[0]} to {null.hz[1]} Hz"] if null.hz else []
    where += [f"from {clock(null.seconds[0])} to {clock(null.seconds[1])}"] if null.seconds else []
    mostly = f", mostly {' and '.join(where)}" if where else ""
    return f"what {'is missing' if null.is_missing else 'they have too much'} is at {null.db:.1f} dB{mostly}"


Jobs = list[tuple[StemAndMix, Path]]


def find_sets(jobs: Sequence[tuple[StemAndMix, Path]]) -> list[Jobs]:
    """Pairs and results that may be complete sets: those with the same mix and channels, without a mix among them, and
    without stems that others already contain, judging by their names."""
    songs: dict[tuple[int, frozenset[Path]], Jobs] = {}
    for pair, target in jobs:
        if pair.mix is not None:
            mix = frozenset(part.path for part in files_of(pair.mix))
            songs.setdefault((pair.stem.channels, mix), []).append((pair, target))
    found = []
    for song in songs.values():
        names = [stem_of(pair.stem.path.name) for pair, _ in song]
        left_out = {MIX, *redundant_stems([name for name in names if name])}
        found.append([job for job, name in zip(song, names, strict=True) if name not in left_out])
    return found


@dataclass(frozen=True)
class _Set:
    """Stems of one mix in their common time, `samples` long."""

    stems: Sequence[AudioInfo]
    placements: Sequence[Placement]
    mix: AudioInfo
    common: MixFit

    @property
    def samples(self) -> int:
        """Length of the longest stem."""
        return max(stem.samples for stem in self.stems)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of all stems (S, C, n) and of the mix (C, n)."""
        readers = [p.read(stem, self.samples) for stem, p in zip(self.stems, self.placements, strict=True)]
        stacked, summed = tee(np.stack(parts) for parts in zip(*readers, strict=True))
        beside = read_beside(self.mix, self.common, (stems.sum(axis=0) for stems in summed))
        yield from zip(stacked, beside, strict=True)

    def cells(self, variants: Sequence[tuple[AudioInfo, Placement]] = ()) -> Cells:
        """Products of all stems, then of other placements of some, then of the mix."""
        meter = NullMeter(self.mix.sample_rate)
        others = [placement.read(stem, self.samples) for stem, placement in variants]
        for stems, mix in self.blocks():
            meter.add(np.stack([*stems, *(next(other) for other in others), mix]))
        return meter.finish()


def complete_set(
    jobs: Jobs, *, residual: Path | None = None, overwrite: bool = False, progress: Progress | None = None
) -> SetReport:
    """Make repaired stems sum to their mix, if the unrepaired ones leave out little of it.

    A stem that is off is brought to the time, polarity and channels that most have in common, and levels that a
    separator has changed are restored. The rest of the difference is shared out among the stems, or written to
    `residual`.

    jobs: the unrepaired stems, all with the same mix, and the repaired ones, which are all replaced together, after
    everything is written. overwrite: of the residual. Raises AudioFileError, OptionError, OutputError,
    OutputExistsError.
    """
    pairs, targets = [pair for pair, _ in jobs], [target for _, target in jobs]
    mix = pairs[0].mix
    assert mix is not None, "a set is made to sum to a mix"
    stems, repaired = [pair.stem for pair in pairs], [probe(target) for target in targets]
    fits = [pair.fit for pair in pairs if pair.fit is not None and pair.fit.found]
    if not fits:
        return SetReport(len(pairs), None, residual=residual.name if residual else "")
    absent = tuple(pair.stem.path.name for pair in pairs if pair.mix_left_out)
    common = common_fit(fits, stems[0].samples)
    ones = np.ones(len(pairs))
    plain = _Set(stems, [Placement.as_it_is(stem.channels) for stem in stems], mix, common)
    placements, cells, before = _place(pairs, plain)
    gains = cells.clear_gains()
    missing_db = cells.low_db(gains)
    off = [n for n, placement in enumerate(placements) if not placement.is_plain]
    again = _Set(repaired, placements, mix, common).cells()
    if again.low_db(gains) > again.low_db(ones):  # the repair has already changed the levels
        gains, missing_db = ones, cells.low_db(ones)
    missing_db = min(missing_db, again.low_db(gains))  # stems with much bleed add up once they are repaired
    lacks_stem = missing_db > MAX_ABSENT_DB and cells.absent(gains) > MAX_ABSENT
    if (missing_db > MAX_MISSING_DB or lacks_stem) and residual is None:
        return SetReport(len(pairs), before, absent=absent)
    corrections = [
        f"{stems[n].path.name} {' and '.join(placements[n].describe())}" for n in off
    ] + [
        f"{stem.path.name} is {abs(20 * np.log10(gain)):.2f} dB too {'quiet' if gain > 1 else 'loud'}"
        for stem, gain in zip(stems, gains, strict=True)
        if gain != 1.0
    ]  # fmt: skip
    placed = [placement.scaled(float(gain)) for placement, gain in zip(placements, gains, strict=True)]
    corrected = _Set(repaired, placed, mix, common)
    severities = None if residual else [analyse_pair(pair).strength for pair in pairs]
    notes = _write(corrected, targets, severities, progress)
    final = _Set(
        [probe(target) for target in targets], [Placement.as_it_is(stem.channels) for stem in stems], mix, common
    )
    after = final.cells().null(ones)
    if residual is not None:
        keep = [path for pair in pairs for path in pair.paths]
        notes += _write_residual(final, residual, [*keep, *targets], overwrite=overwrite)
        both = [*final.stems, probe(residual)]
        after = _Set(both, [*final.placements, final.placements[0]], mix, common).cells().null(np.ones(len(both)))
    if mix.subtype in LOSSY:
        notes.insert(0, "including the coding noise of this lossy mix: use a WAV or FLAC mix, or --no-sum")
    name = residual.name if residual else ""
    return SetReport(len(pairs), before, after, tuple(corrections), tuple(notes), absent, name)


def _place(pairs: Sequence[StemAndMix], plain: _Set) -> tuple[list[Placement], Cells, Null]:
    """Where each stem belongs, the products of the stems there, and what the stems leave as they are."""
    found = list(plain.placements)
    variants: list[tuple[int, Placement]] = []
    for number, pair in enumerate(pairs):
        if pair.fit is not None and pair.fit.found:
            placement = Placement.between(pair.fit, plain.common, plain.samples)
            if not placement.is_plain:
                variants.append((number, placement))
    cells = plain.cells([(plain.stems[number], placement) for number, placement in variants])
    used = list(range(len(pairs)))
    for column, (number, placement) in enumerate(variants, start=len(pairs)):
        used[number], found[number] = column, placement
    before = cells.pick(list(range(len(pairs)))).null(np.ones(len(pairs)))
    for column, (number, _) in enumerate(variants, start=len(pairs)):
        used[number] = number
        if cells.is_better(used, number, column):
            used[number] = column
        else:
            found[number] = plain.placements[number]
    return found, cells.pick(used), before


def _write(
    corrected: _Set, targets: Sequence[Path], severities: Sequence[float] | None, progress: Progress | None
) -> list[str]:
    """Replace the repaired stems by corrected ones, with their shares of the difference if there are severities."""
    notes, written = list[str](), list[tuple[Path, Path]]()
    with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".stemprover-set-") as folder:
        for number, target in enumerate(targets):
            if severities is None and corrected.placements[number].is_plain:
                continue
            place = Path(folder) / f"{number}{target.suffix}"
            report = render_file(target, place, _Summand(corrected, number, severities), progress=progress)
            notes += [f"{target.name}: {note}" for note in report.notes]
            written.append((place, target))
        try:
            for place, target in written:
                shutil.copymode(target, place)
                place.replace(target)
        except OSError as error:
            raise OutputError(
                f"{target} cannot be replaced ({error.strerror}); it is repaired, but the stems do not sum to the mix"
            ) from error
    return notes


class _Summand:
    """Stands in for the model (render.ChunkRepairer): brings one stem to its place, and adds its share of what the set
    lacks."""

    def __init__(self, corrected: _Set, number: int, severities: Sequence[float] | None) -> None:
        self.corrected, self.number, self.severities = corrected, number, severities

    def process_chunks(
        self, chunks: Iterable[Block], sample_rate: int, channels: int, *, has_mix: bool = False,
        role: str | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """The stem (C, m), in step with its own chunks (C, n); reads all stems itself."""
        waiting, left = Fifo(), self.corrected.stems[self.number].samples
        consistency = None if self.severities is None else MixConsistency(self.severities, channels)
        own = iter(chunks)
        for stems, mix in self.corrected.blocks():
            waiting.push(stems[self.number])
            next(own, None)
            if consistency is None:
                share = np.zeros_like(mix)
            else:
                share = consistency.process(stems, mix)[self.number]
            share = share[:, : min(left, share.shape[1])]
            if share.shape[1]:
                left -= share.shape[1]
                yield waiting.pop(share.shape[1]) + share
        if consistency is not None and left:
            yield waiting.pop(left) + consistency.finish()[self.number][:, :left]


def _write_residual(final: _Set, target: Path, inputs: Sequence[Path], *, overwrite: bool) -> list[str]:
    """Write what the stems leave of the mix, as long as the longest stem."""
    like = max(final.stems, key=lambda stem: stem.samples)
    chosen, clipped = choose_format(like, target), 0
    with atomic_output(target, inputs, overwrite=overwrite) as part:
        check_space(like, chosen, target)
        with AudioWriter(part, like, chosen.container, chosen.subtype) as writer:
            for stems, mix in final.blocks():
                encoded = writer.codec.encode(mix - stems.sum(axis=0), None)
                clipped += encoded.clipped_samples
                writer.write(encoded.native)
    return [f"{target.name}: {clipped} samples went over full scale and were clipped"] if clipped else []
