"""Writes results atomically: a half-written file never appears under the final name.

A result is written to a hidden `.<name>.<random>.part` next to its target, flushed to disk, and renamed in one step.
After a crash or a power cut, either the old file or the new one is there; at worst, a .part file is left over, which
can be deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import soundfile

from ..engine.errors import OutputError, OutputExistsError

_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another disk",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "no write permission; choose another folder",
    errno.EPERM: "no write permission; choose another folder",
    errno.EFBIG: "the file would be larger than the system allows here; choose another disk",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "the folder does not exist; create it first",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def output_error(target: Path, error: OSError) -> OutputError:
    """The system's error as one line that says what to do."""
    return OutputError(f"{target} cannot be written: {_CAUSES.get(error.errno or 0, error.strerror or str(error))}")


def make_folder(folder: Path) -> None:
    """Create an output folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def check_output(target: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raises OutputExistsError if `target` is one of the inputs (under any name), or exists and may not be replaced."""
    if not os.path.lexists(target):
        return
    for path in inputs:
        with contextlib.suppress(OSError):
            if os.path.samefile(path, target):
                raise OutputExistsError(f"{target} is an input and is never overwritten; choose another output")
    if target.is_dir():
        raise OutputExistsError(f"{target} is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise OutputExistsError(f"{target} is a device or a pipe; name a file")
    if not overwrite:
        raise OutputExistsError(f"{target} already exists; choose another output or add --overwrite")


@contextlib.contextmanager
def atomic_output(target: Path, inputs: Iterable[Path], *, overwrite: bool) -> Iterator[Path]:
    """Yields the path of a new, empty file. It is renamed to `target` if the block succeeds, and deleted if not.

    Raises OutputExistsError as `check_output` does, and OutputError for errors of the file system.
    """
    inputs = tuple(inputs)
    check_output(target, inputs, overwrite=overwrite)
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it first")
    start = os.fsencode(target.name)[:80].decode("utf-8", "ignore")  # a name's bytes are limited, not its letters
    part = target.parent / f".{start}.{secrets.token_hex(4)}.part"
    try:
        part.open("xb").close()
    except OSError as error:
        raise output_error(target, error) from error
    try:
        try:
            yield part
            with part.open("r+b") as file:
                os.fsync(file.fileno())
            check_output(target, inputs, overwrite=overwrite)  # somebody may have created it in the meantime
            os.replace(part, target)
        except soundfile.SoundFileError as error:
            raise _writing_failed(target) from error
        except OSError as error:
            raise output_error(target, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _writing_failed(target: Path) -> OutputError:
    """libsndfile hides the system's reason, so look at the disk."""
    if shutil.disk_usage(target.parent).free < 1 << 20:
        return OutputError(f"{target} cannot be written: {_CAUSES[errno.ENOSPC]}")
    return OutputError(f"{target} cannot be written to the end; check the disk and its limit on file sizes")


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, on systems that support it."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
