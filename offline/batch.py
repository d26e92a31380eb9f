"""Which file goes where: the inputs of `stemprover repair` and its one output name.

The rule: one file in and an output name with an extension, and that is the file to write. In every other case the
output is a folder: files keep their names in it, and what lay in a folder keeps its sub-folders.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import AudioFileError, OptionError, OutputExistsError, StemProverError
from .outfile import CONTAINERS, output_error

# What is picked from a folder; a file that is named itself may be called anything.
AUDIO_EXTENSIONS = frozenset(CONTAINERS) | {".snd"}


@dataclass(frozen=True)
class RenderJob:
    """One file to repair and where it goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class RenderPlan:
    """All jobs, the inputs that cannot be one, and whether the outputs' folders are made where they are missing."""

    jobs: tuple[RenderJob, ...]
    failures: tuple[tuple[Path, StemProverError], ...] = ()
    makes_folders: bool = False


def plan_renders(
    inputs: Sequence[Path], output: Path, *, is_folder: bool = False, mix: Path | None = None
) -> RenderPlan:
    """Jobs for files and folders (searched through all sub-folders; hidden files, the output folder and the song left
    out).

    is_folder: the output was written with a slash at its end. mix: the song, which is no stem where a folder holds it.
    Raises OptionError or OutputExistsError where the output name does not fit the inputs; an input that is wrong by
    itself is among the plan's failures, so that the others can go on.
    """
    if not inputs:
        raise OptionError("there is nothing to repair: name at least one audio file or folder")
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if single and not is_folder and not output.is_dir() and output.suffix:
        return RenderPlan((RenderJob(inputs[0], output),))
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output}: is a file; name a folder for the output of a folder or several files")
    jobs: list[RenderJob] = []
    failures: list[tuple[Path, StemProverError]] = []
    seen: set[Path] = set()
    for item in inputs:
        refused: list[OSError] = []
        try:
            found = _audio_below(item, output, mix, refused) if item.is_dir() else [(item, Path(item.name))]
        except AudioFileError as error:
            failures.append((item, error))
            continue
        for problem in refused:
            place, why = Path(problem.filename), f"cannot be read ({problem.strerror}); give leave to read it"
            failures.append((place, AudioFileError(f"{place}: {why}")))
        for source, relative in found:
            real = source.resolve()
            if real not in seen:
                seen.add(real)
                jobs.append(RenderJob(source, output / relative))
    _check_collisions(jobs)
    return RenderPlan(tuple(jobs), tuple(failures), makes_folders=True)


def make_folder(folder: Path) -> None:
    """Make an output folder and those above it. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _audio_below(folder: Path, output: Path, mix: Path | None, refused: list[OSError]) -> list[tuple[Path, Path]]:
    """Audio files and their places relative to `folder`, in the order of their names; to `refused` goes what cannot be
    looked into."""
    skipped, song = output.resolve(), None if mix is None else mix.resolve()
    found = []
    for root, names, files in os.walk(folder, onerror=refused.append):
        names[:] = sorted(n for n in names if not n.startswith(".") and (Path(root) / n).resolve() != skipped)
        for name in sorted(files):
            path = Path(root) / name
            if not name.startswith(".") and path.suffix.lower() in AUDIO_EXTENSIONS and path.resolve() != song:
                found.append((path, path.relative_to(folder)))
    if not found and not refused:
        raise AudioFileError(
            f"{folder}: there are no audio files in this folder; StemProver looks for WAV, FLAC, AIFF, MP3 ..."
        )
    return found


def _check_collisions(jobs: Sequence[RenderJob]) -> None:
    sources: dict[str, Path] = {}
    for job in jobs:
        key = os.path.normcase(job.target)
        if key in sources:
            raise OptionError(
                f"{sources[key]} and {job.source} would both become {job.target}; repair them one after the other, "
                "into different folders"
            )
        sources[key] = job.source
