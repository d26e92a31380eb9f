"""Remembers which results in an output folder are finished, so that a run that was stopped can go on.

A hidden file beside the folder, `.NAME.stemprover.jsonl`, has a line for each result: the checksums of the result, of
its stem and its mix, and of the settings. A result is only taken for finished if all of them are still the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engine.errors import StemProverError
from ..engine.preset import SHIPPED, Preset
from .outfile import atomic_output
from .plan import BatchJob, by_song

_FILE_NAME = ".stemprover.jsonl"


def journal_path(folder: Path) -> Path:
    """The journal of an output folder. It lies beside the folder, which holds only results, or inside it if the folder
    has no name (`.`) or its parent is not writable."""
    inside = folder / _FILE_NAME
    may_write = os.access(folder.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    if folder.name in ("", "..") or inside.exists() or not may_write:
        return inside
    return folder.parent / f".{folder.name}{_FILE_NAME}"


@dataclass(frozen=True)
class Entry:
    """One result. output: its path in the folder. result, stem, mix, settings: checksums; mix is "" without one.

    stems: of all stems with which the result was made to sum to the mix, or "".
    """

    output: str
    result: str
    stem: str
    mix: str
    settings: str
    stems: str = ""


class Journal:
    """The results in `folder` of one run with these settings (`settings_checksum`).

    Errors of the file system count as unfinished results, and a journal that cannot be written is left.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self._folder, self._settings = folder, settings
        self._checksums: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def sort(self, jobs: Sequence[BatchJob]) -> tuple[set[BatchJob], set[BatchJob], set[BatchJob]]:
        """Jobs that are finished; jobs whose result comes from this run's settings but has to be made again, because it
        was made to sum with other stems of its song than there are now; and jobs that were already made to sum."""
        jobs_by_key = {self._key(job): job for job in jobs}
        own = {}
        for entry in self._read():
            job = jobs_by_key.get(entry.output)
            if job is not None and self._is_current(job, entry):
                own[job] = entry
        done, again, summed = set[BatchJob](), set[BatchJob](), set[BatchJob]()
        for song in by_song(jobs):
            mine = {job: own[job] for job in song if job in own}
            if len(mine) == len(song) and {entry.stems for entry in mine.values()} == {self._stems(song)}:
                done, summed = done | set(song), summed | set(song)
                continue
            single = {job for job, entry in mine.items() if not entry.stems}
            done, again = done | single, again | (set(mine) - single)
        return done, again, summed

    def record(self, job: BatchJob, result: Path) -> None:
        """Note that a job is finished. result: its file, which may not have its final name yet."""
        with contextlib.suppress(OSError, StemProverError):
            self._write([self._entry(job, result)])

    def record_sum(self, jobs: Sequence[BatchJob]) -> None:
        """Note that the results of these jobs, all of a song, were made to sum to its mix, or need not be."""
        with contextlib.suppress(OSError, StemProverError):
            self._write([self._entry(job, job.target, self._stems(jobs)) for job in jobs])

    def note_inputs(self, job: BatchJob) -> None:
        """Take the checksums of what is read, before it is read."""
        with contextlib.suppress(OSError):
            self._checksum(job.source)
            self._mix_checksum(job)

    def _entry(self, job: BatchJob, result: Path, stems: str = "") -> Entry:
        mix, settings = self._mix_checksum(job), self._settings
        return Entry(self._key(job), checksum(result), self._checksum(job.source), mix, settings, stems)

    def _key(self, job: BatchJob) -> str:
        return job.target.relative_to(self._folder).as_posix()

    def _is_current(self, job: BatchJob, entry: Entry) -> bool:
        with contextlib.suppress(OSError):
            mix, settings = self._mix_checksum(job), self._settings
            if (entry.settings, entry.mix, entry.stem) == (settings, mix, self._checksum(job.source)):
                return checksum(job.target) == entry.result
        return False

    def _stems(self, jobs: Sequence[BatchJob]) -> str:
        with contextlib.suppress(OSError):
            return _digest("".join(sorted(self._checksum(job.source) for job in jobs)).encode())
        return "unknown"

    def _mix_checksum(self, job: BatchJob) -> str:
        return "" if job.beside is None else self._checksum(job.beside)

    def _checksum(self, path: Path) -> str:
        """As it was when it was first asked for, unless the file has changed since."""
        about = path.stat()
        state = about.st_size, about.st_mtime_ns, about.st_ino
        if path not in self._checksums or self._checksums[path][0] != state:
            self._checksums[path] = state, checksum(path)
        return self._checksums[path][1]

    def _read(self) -> list[Entry]:
        entries = []
        with contextlib.suppress(OSError):
            for line in journal_path(self._folder).read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    entries.append(Entry(**json.loads(line)))
        return [entry for entry in entries if all(isinstance(value, str) for value in asdict(entry).values())]

    def _write(self, new: Sequence[Entry]) -> None:
        """Add entries. The last one of a result stays too, in case the new result never gets its name."""
        by_output: dict[str, list[Entry]] = {}
        for entry in (*self._read(), *new):
            by_output[entry.output] = [*by_output.get(entry.output, [])[-1:], entry]
        lines = [json.dumps(asdict(entry)) for entries in by_output.values() for entry in entries]
        with atomic_output(journal_path(self._folder), (), overwrite=True) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def settings_checksum(preset: Preset | None, **settings: Any) -> str:
    """Of everything that decides how a result sounds, beside the files: the preset (None for auto), the version of the
    weights, and `settings`."""

    def known(path: Path) -> str:
        with contextlib.suppress(OSError):  # the error is reported where the file is loaded
            return checksum(path)
        return ""

    chosen: Any = "auto"
    if preset is not None:
        adapters = [(known(path), weight) for path, weight in preset.adapters.items()]
        chosen = [preset.name, preset.wet, preset.separated, repr(preset.before), repr(preset.after), adapters]
    weights = sorted(known(path) for path in (*SHIPPED.glob("*/*.safetensors"), *SHIPPED.glob("*/preset.toml")))
    about = [chosen, weights, known(SHIPPED / "base" / "bundle.json"), sorted(settings.items())]
    return _digest(json.dumps(about).encode())


def checksum(path: Path) -> str:
    """Of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
