"""Decides which file goes where, from the inputs of `stemprover repair` and its output name.

One input file and an output name with an extension: that file is written. In every other case the output is a folder;
files keep their names in it, and files from an input folder keep their subfolders. A slash at the end of the output, or
a folder of this name, always means a folder. Missing folders are created.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.errors import AudioFileError, OptionError, OutputExistsError, StemProverError
from ..engine.preset import AUTO, Preset, preset_or_blend
from ..engine.stem_names import WHOLE_BAND, song_of, stem_of
from .address import Address, walk
from .formats import CONTAINERS
from .outfile import check_output

# Files with these are picked from folders. A file that is named directly may be called anything.
AUDIO_EXTENSIONS = frozenset(CONTAINERS) | {".snd"}


@dataclass(frozen=True)
class BatchJob:
    """One file to repair and where the result goes. rest: all of the song but this stem, in place of its mix. preset
    (as for `preset_or_blend`, or auto) and wet: in place of the batch's."""

    source: Path
    target: Path
    mix: Path | None = None
    rest: Path | None = None
    preset: str | None = None
    wet: float | None = None

    @property
    def beside(self) -> Path | None:
        """What is read beside the stem: its mix, or the rest of the song."""
        return self.mix or self.rest

    @property
    def song(self) -> frozenset[Path]:
        """Equal for all stems of a song: its mix, or a stem and its rest; empty without both."""
        return frozenset({self.mix} if self.mix else {self.source, self.rest} if self.rest else ())


@dataclass(frozen=True)
class JobDefaults:
    """What holds for jobs that name no preset or no amount. preset: None for auto. wet: None for the preset's."""

    preset: Preset | None
    wet: float | None = None

    def preset_of(self, job: BatchJob) -> Preset | None:
        """None for auto. Raises PresetError and OptionError."""
        if job.preset is None:
            return self.preset
        return None if job.preset == AUTO else preset_or_blend(job.preset)

    def wet_of(self, job: BatchJob) -> float | None:
        """None for the preset's own."""
        return self.wet if job.wet is None else job.wet


@dataclass(frozen=True)
class BatchPlan:
    """The jobs of a batch.

    inputs: all files that no output may replace. failures: inputs that gave no job, and why.
    folder: the output folder; None for a single output file.
    """

    jobs: tuple[BatchJob, ...]
    inputs: tuple[Path, ...]
    failures: tuple[tuple[Path, StemProverError], ...] = ()
    folder: Path | None = None

    @property
    def has_mix(self) -> bool:
        """Whether any stem has its mix, or the rest of its song."""
        return any(job.beside for job in self.jobs)

    def absolute(self) -> BatchPlan:
        """The same for processes with other working directories."""
        jobs = tuple(
            replace(
                job,
                source=job.source.absolute(),
                target=job.target.absolute(),
                mix=job.mix and job.mix.absolute(),
                rest=job.rest and job.rest.absolute(),
            )
            for job in self.jobs
        )
        folder = self.folder and self.folder.absolute()
        return replace(self, jobs=jobs, inputs=tuple(path.absolute() for path in self.inputs), folder=folder)

    @property
    def songs(self) -> list[tuple[BatchJob, ...]]:
        """The jobs of each song (`BatchJob.song`); all without a mix together."""
        return by_song(self.jobs)


def by_song(jobs: Sequence[BatchJob]) -> list[tuple[BatchJob, ...]]:
    """The jobs of each song, in order."""
    songs: dict[frozenset[Path], list[BatchJob]] = {}
    for job in jobs:
        songs.setdefault(job.song, []).append(job)
    return [tuple(found) for found in songs.values()]


def plan_batch(
    inputs: Sequence[Path],
    output: Path,
    *,
    is_folder: bool = False,
    mix: Path | None = None,
    rest: Path | None = None,
    mixes: Path | None = None,
) -> BatchPlan:
    """Plan jobs for files and folders. Folders are searched with all their subfolders, except for hidden files, the
    output folder, the mix and the folder of mixes.

    is_folder: whether the output was written with a slash at the end. mix: the mix of all stems. rest: in place of the
    mix, all of the song but the one stem. mixes: a folder of mixes, for pairing.pair_with_mixes. With none of them, an
    instrumental and the vocals of a song are each other's rest.
    Raises OptionError or OutputExistsError if the output name does not suit the inputs. An input that is wrong by
    itself becomes one of the plan's failures, so that the others are still repaired.
    """
    if not inputs:
        raise OptionError("there is nothing to repair: name at least one audio file or folder")
    if str(output) in ("-", "/dev/stdout"):
        raise OptionError(f"{output}: a result cannot be written to standard output; name a file or a folder")
    beside = mix or rest
    known = () if beside is None else (beside,)
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not is_folder and not output.is_dir() and output.suffix:
        if output.suffix.lower() not in (*AUDIO_EXTENSIONS, inputs[0].suffix.lower()):
            raise OptionError(
                f"{output}: {output.suffix} is not an audio file type; for a folder of this name put a slash at the "
                f"end ({output}/), for a file use .wav or .flac"
            )
        return BatchPlan((BatchJob(inputs[0], output, mix, rest),), (inputs[0], *known))
    if output.suffix.lower() in AUDIO_EXTENSIONS and not is_folder and not output.is_dir():
        what = f"there are {len(inputs)} inputs" if len(inputs) > 1 else f"{inputs[0]} is a folder"
        raise OptionError(f"{output} is a name for one file, but {what}; name a folder, such as {output.stem}/")
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output} is a file; to repair a folder or several files, name an output folder")
    jobs: list[BatchJob] = []
    failures: list[tuple[Path, StemProverError]] = []
    seen: set[Path] = set()
    for item in inputs:
        unreadable: list[OSError] = []
        try:
            skipped = [output, *filter(None, (beside, mixes))]
            found = audio_below(item, *skipped, unreadable=unreadable) if item.is_dir() else [(item, Path(item.name))]
        except AudioFileError as error:
            failures.append((item, error))
            continue
        for problem in unreadable:
            place = Path(problem.filename)
            hint = f"cannot be read ({problem.strerror}); check its read permission"
            failures.append((place, AudioFileError(f"{place} {hint}")))
        for source, relative in found:
            real = source.resolve()
            if real not in seen:
                seen.add(real)
                jobs.append(BatchJob(source, output / relative, mix))
    check_collisions(jobs)
    if rest is not None:
        if len(jobs) > 1:
            raise OptionError(f"--rest is the song without one stem, not without {len(jobs)}; use --mix with several")
        jobs = [replace(job, rest=rest) for job in jobs]
    elif mix is None and mixes is None:
        jobs = _pair_up(jobs)
    return BatchPlan(tuple(jobs), (*(job.source for job in jobs), *known), tuple(failures), output)


def check_removed(removed: Path, plan: BatchPlan, *, overwrite: bool) -> None:
    """Raises OptionError or OutputExistsError if what a repair removes cannot go to this file."""
    if plan.folder is not None:
        raise OptionError("--removed is for one stem: name one file, and a file for the output")
    if any(isinstance(path, Address) for job in plan.jobs for path in (job.source, job.target)):
        raise OptionError("--removed is for files on this machine: fetch the stem first")
    if plan.jobs and removed.resolve() == plan.jobs[0].target.resolve():
        raise OptionError(f"{removed} is the output; choose another file for --removed")
    check_output(removed, plan.inputs, overwrite=overwrite)


def check_residual(residual: Path, plan: BatchPlan, *, sum_to_mix: bool, overwrite: bool) -> None:
    """Raises OptionError or OutputExistsError if the residual of a plan's stems cannot go to this file."""
    if not sum_to_mix:
        raise OptionError("--residual and --no-sum exclude each other; use one of them")
    if len(plan.songs) > 1:
        raise OptionError("--residual is for one song; repair the songs one by one")
    if residual.resolve() in {job.target.resolve() for job in plan.jobs}:
        raise OptionError(f"{residual} is the output of a stem; choose another file for --residual")
    check_output(residual, plan.inputs, overwrite=overwrite)


def audio_below(
    folder: Path, *skipped: Path | None, unreadable: list[OSError] | None = None
) -> list[tuple[Path, Path]]:
    """Audio files in `folder` and their paths relative to it, sorted by name, without these files and folders. Adds
    folders that cannot be read to `unreadable`. Raises AudioFileError if there are none."""
    left_out = {path.resolve() for path in skipped if path is not None}
    unreadable = [] if unreadable is None else unreadable
    found = []
    for root, names, files in walk(folder, unreadable.append):
        names[:] = sorted(n for n in names if not n.startswith(".") and (root / n).resolve() not in left_out)
        for name in sorted(files):
            path = root / name
            if not name.startswith(".") and path.suffix.lower() in AUDIO_EXTENSIONS and path.resolve() not in left_out:
                found.append((path, path.relative_to(folder)))
    if not found and not unreadable:
        raise AudioFileError(f"{folder}: no audio files in this folder; StemProver looks for WAV, FLAC, AIFF, MP3 ...")
    return found


def _pair_up(jobs: Sequence[BatchJob]) -> list[BatchJob]:
    """The jobs, with the vocals and the instrumental of a song as each other's rest if the song has no other files."""
    songs: dict[tuple[Path, str], dict[str | None, Path]] = {}
    counts = Counter(song_of(job.source) for job in jobs)
    for job in jobs:
        songs.setdefault(song_of(job.source), {})[stem_of(job.source.name)] = job.source
    rests: dict[Path, Path] = {}
    for song, stems in songs.items():
        if counts[song] == 2 and stems.keys() == {"vocals", WHOLE_BAND}:
            vocals, band = stems["vocals"], stems[WHOLE_BAND]
            rests |= {vocals: band, band: vocals}
    return [replace(job, rest=rests.get(job.source)) for job in jobs]


def check_collisions(jobs: Sequence[BatchJob]) -> None:
    """Raises OptionError if two jobs have one target."""
    sources: dict[str, Path] = {}
    for job in jobs:
        key = os.path.normcase(job.target)
        if key in sources:
            raise OptionError(
                f"{sources[key]} and {job.source} would both be written to {job.target}; repair them separately, into "
                "different folders"
            )
        sources[key] = job.source
