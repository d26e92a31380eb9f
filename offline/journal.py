"""Remembers which results in an output folder are finished, so that a run that was stopped can go on.

A hidden file beside the folder, `.NAME.stemprover.jsonl`, has a line for each result: the checksums of the result, of
its stem and its mix, and of the settings. A result is only taken for finished if all of them are still the same. Lines
are only ever appended, and workers on other machines append to files of their own, `.NAME.stemprover.WORKER.jsonl`.
Results at an address (address.py) have a hidden file each instead, `.RESULT.stemprover.json`.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..engine.errors import StemProverError
from ..engine.preset import SHIPPED, Preset
from . import address
from .address import Address
from .plan import BatchJob, JobDefaults, by_song

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


@dataclass
class Journal:
    """The results in `folder` of one run. settings: the checksum of a job's settings (`settings_checksum`). writer: the
    name of the worker that appends to a file of its own, or "".

    Errors of the file system count as unfinished results, and a journal that cannot be written is left.
    """

    folder: Path
    settings: Callable[[BatchJob], str]
    writer: str = ""
    _checksums: dict[Path, tuple[tuple[int, int, int], str]] = field(default_factory=dict, repr=False)

    @cached_property
    def _entries(self) -> dict[str, list[Entry]]:
        """The entries of each result: the last one, and the one before it, in case the new result never gets its
        name."""
        found: dict[str, list[Entry]] = {}
        for entry in self._read():
            _add(found, entry)
        return found

    def sort(self, jobs: Sequence[BatchJob]) -> tuple[set[BatchJob], set[BatchJob], set[BatchJob]]:
        """Jobs that are finished; jobs whose result comes from this run's settings but has to be made again, because it
        was made to sum with other stems of its song than there are now; and jobs that were already made to sum."""
        own = {}
        for job in jobs:
            current = [entry for entry in self._known(job) if self._is_current(job, entry)]
            if current:
                own[job] = sorted(current, key=lambda entry: bool(entry.stems))[-1]
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
            self._write([(job, self._entry(job, result))])

    def record_sum(self, results: Sequence[tuple[BatchJob, Path]]) -> None:
        """Note that the results of these jobs, all of a song, were made to sum to its mix, or need not be."""
        with contextlib.suppress(OSError, StemProverError):
            stems = self._stems([job for job, _ in results])
            self._write([(job, self._entry(job, result, stems)) for job, result in results])

    def note_inputs(self, job: BatchJob) -> None:
        """Take the checksums of what is read, before it is read."""
        with contextlib.suppress(OSError):
            self._checksum(job.source)
            self._mix_checksum(job)

    def _known(self, job: BatchJob) -> Sequence[Entry]:
        """The last entries of a job, whatever they say."""
        if self._key(job) not in self._entries and job.target.exists():
            vars(self).pop("_entries")  # perhaps another worker's, which has died since
        return self._entries.get(self._key(job), ())

    def _entry(self, job: BatchJob, result: Path, stems: str = "") -> Entry:
        mix, settings = self._mix_checksum(job), self.settings(job)
        return Entry(self._key(job), self._result(job, result), self._checksum(job.source), mix, settings, stems)

    def _result(self, job: BatchJob, result: Path) -> str:
        """What an entry says of the result, which is still another file."""
        return checksum(result)

    def _is_result(self, job: BatchJob, said: str) -> bool:
        """Whether the result is the one of which an entry said this."""
        return checksum(job.target) == said

    def _key(self, job: BatchJob) -> str:
        return job.target.relative_to(self.folder).as_posix()

    def _is_current(self, job: BatchJob, entry: Entry) -> bool:
        with contextlib.suppress(OSError):
            mix, settings = self._mix_checksum(job), self.settings(job)
            if (entry.settings, entry.mix, entry.stem) == (settings, mix, self._checksum(job.source)):
                return self._is_result(job, entry.result)
        return False

    def _stems(self, jobs: Sequence[BatchJob]) -> str:
        with contextlib.suppress(OSError):
            return _digest("".join(sorted(self._checksum(job.source) for job in jobs)).encode())
        return "unknown"

    def _mix_checksum(self, job: BatchJob) -> str:
        return "" if job.beside is None else self._checksum(job.beside)

    def _checksum(self, path: Path) -> str:
        """As it was when it was first asked for, unless the file has changed since."""
        if isinstance(path, Address):
            return address.version(path)
        about = path.stat()
        state = about.st_size, about.st_mtime_ns, about.st_ino
        if path not in self._checksums or self._checksums[path][0] != state:
            self._checksums[path] = state, checksum(path)
        return self._checksums[path][1]

    def _read(self) -> Iterator[Entry]:
        path = journal_path(self.folder)
        for file in sorted(path.parent.glob(f"{glob.escape(path.stem)}*.jsonl")):
            with contextlib.suppress(OSError):
                yield from _parse(file.read_text(encoding="utf-8", errors="replace"))

    def _write(self, new: Sequence[tuple[BatchJob, Entry]]) -> None:
        """Append entries in one step, so that several processes may share a file."""
        path = journal_path(self.folder)
        if self.writer:
            path = path.with_suffix(f".{self.writer}.jsonl")
        for _, entry in new:
            _add(self._entries, entry)
        lines = "".join(_line(entry) for _, entry in new)
        with path.open("ab+", buffering=0) as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
            if end and file.read(1) != b"\n":
                lines = f"\n{lines}"  # a line that a crash has cut short must not swallow the next one
            file.write(lines.encode())
            os.fsync(file.fileno())


class RemoteJournal(Journal):
    """The journal of a folder at an address, where nothing can be appended to: a file beside each result.

    It is written before the result gets its place, and says which version of the file the result is not.
    """

    def _known(self, job: BatchJob) -> Sequence[Entry]:
        return list(_parse(address.read_text(_beside(job))))

    def _result(self, job: BatchJob, result: Path) -> str:
        return f"not {self._version(job)}"

    def _is_result(self, job: BatchJob, said: str) -> bool:
        version = self._version(job)
        return bool(version) and said != f"not {version}"

    def _version(self, job: BatchJob) -> str:
        """Of the result that there is; "" if there is none."""
        assert isinstance(job.target, Address)
        return address.version(job.target) if job.target.exists() else ""

    def _write(self, new: Sequence[tuple[BatchJob, Entry]]) -> None:
        for job, entry in new:
            kept = [*self._known(job)[-1:], entry]
            address.write_text("".join(map(_line, kept)), _beside(job))


def open_journal(folder: Path, settings: Callable[[BatchJob], str], writer: str = "") -> Journal:
    """The journal of an output folder, wherever that is."""
    return (RemoteJournal if isinstance(folder, Address) else Journal)(folder, settings, writer)


def _beside(job: BatchJob) -> Address:
    assert isinstance(job.target, Address)
    return job.target.with_name(f".{job.target.name}.stemprover.json")


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _parse(text: str) -> Iterator[Entry]:
    """The entries of a journal, without lines that a crash has cut short."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            entry = Entry(**json.loads(line))
            if all(isinstance(value, str) for value in asdict(entry).values()):
                yield entry


def _add(entries: dict[str, list[Entry]], entry: Entry) -> None:
    entries[entry.output] = [*entries.get(entry.output, [])[-1:], entry]


@dataclass
class JobSettings:
    """The checksum of each job's settings: of its preset and amount, and of `others`, which all jobs share."""

    defaults: JobDefaults
    others: Mapping[str, Any]
    _found: dict[tuple[str | None, float | None], str] = field(default_factory=dict)

    def __call__(self, job: BatchJob) -> str:
        key = job.preset, job.wet
        if key not in self._found:
            preset, wet = self.defaults.preset_of(job), self.defaults.wet_of(job)
            self._found[key] = settings_checksum(preset, wet=wet, **self.others)
        return self._found[key]


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
