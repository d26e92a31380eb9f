"""Where results go: which file type, which name, and never half a file under that name.

A result is written to a hidden `.<name>.<random>.part` beside its place, flushed to the disk, and renamed in one
step. After a crash or a power cut either the old file is there or the new one, and at worst a .part file that can be
deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from ..engine.errors import OptionError, OutputError, OutputExistsError
from .audiofile import AudioInfo
from .samples import BYTES_PER_SAMPLE, INTEGER_BITS, LOSSY

# Extension -> libsndfile's containers that go by it, the usual one first.
CONTAINERS: dict[str, tuple[str, ...]] = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".wave": ("WAV", "WAVEX", "RF64"),
    ".bwf": ("WAV", "WAVEX", "RF64"),
    ".rf64": ("RF64",),
    ".w64": ("W64",),
    ".aiff": ("AIFF",),
    ".aif": ("AIFF",),
    ".aifc": ("AIFF",),
    ".flac": ("FLAC",),
    ".caf": ("CAF",),
    ".au": ("AU",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3",),
}
# Apple Lossless goes into other containers as plain integers. 32-bit ALAC is read only: libsndfile 1.2.2 writes loud
# noise wrong (measured).
_PLAIN = {"ALAC_16": "PCM_16", "ALAC_20": "PCM_24", "ALAC_24": "PCM_24", "ALAC_32": "PCM_32"}
_WRITABLE = (INTEGER_BITS.keys() | BYTES_PER_SAMPLE.keys()) - {"ALAC_32"}
_LOSSY_OF = {".ogg": "VORBIS", ".oga": "VORBIS", ".opus": "OPUS", ".mp3": "MPEG_LAYER_III"}
_FOUR_GB = (1 << 32) - (1 << 20)  # less a megabyte for tags
_ENDS_AT_FOUR_GB = {"AIFF", "AU"}
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another disk",
    errno.EROFS: "this place is read-only; choose another folder",
    errno.EACCES: "you may not write here; choose another folder",
    errno.EPERM: "you may not write here; choose another folder",
    errno.EFBIG: "the file is larger than the system allows here; choose another disk",
    errno.ENOENT: "the folder does not exist; make it first",
    errno.ENOTDIR: "the folder does not exist; make it first",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


@dataclass(frozen=True)
class OutputFormat:
    """What is written: libsndfile's container and subtype, and a note where it is not the input's."""

    container: str
    subtype: str
    note: str = ""


def choose_format(source: AudioInfo, target: Path) -> OutputFormat:
    """The source's own format if `target` has the same kind of extension, else the nearest that loses nothing.

    Raises OptionError where the target's type is unknown or cannot hold the source's samples.
    """
    extension = target.suffix.lower()
    keeps = source.container in CONTAINERS.get(extension, ()) or extension == source.path.suffix.lower()
    same_codec = extension == source.path.suffix.lower() and source.subtype in LOSSY
    if keeps and (extension not in _LOSSY_OF or same_codec or source.subtype == _LOSSY_OF[extension]):
        return _kept_format(source, target)
    if extension not in CONTAINERS:
        raise OptionError(
            f"{target}: {extension or 'no extension'} is no file type to write; use {', '.join(CONTAINERS)}"
        )
    container = CONTAINERS[extension][0]
    subtype = _LOSSY_OF.get(extension) or _PLAIN.get(source.subtype, source.subtype)
    if extension not in _LOSSY_OF and subtype not in _WRITABLE:
        subtype = "PCM_24"  # of MP3, ADPCM and the like
    if subtype in ("PCM_U8", "PCM_S8") and not soundfile.check_format(container, subtype):
        subtype = "PCM_S8" if subtype == "PCM_U8" else "PCM_U8"
    if not soundfile.check_format(container, subtype):
        raise OptionError(
            f"{target}: {extension} cannot hold the samples of {source.path} ({subtype}) without loss; use .wav"
        )
    if container == "WAV" and _estimated_bytes(source, subtype) > _FOUR_GB:
        return OutputFormat("RF64", subtype, "written as RF64, since WAV ends at 4 GB")
    _check_four_gb(source, container, subtype, target)
    return OutputFormat(
        container, subtype, f"converted from {source.container} {source.subtype} to {container} {subtype}"
    )


def _kept_format(source: AudioInfo, target: Path) -> OutputFormat:
    if source.subtype in LOSSY:
        return OutputFormat(source.container, source.subtype, f"coded anew as {source.subtype}, which is lossy")
    if source.subtype not in _WRITABLE or not soundfile.check_format(source.container, source.subtype):
        raise OptionError(
            f"{source.path}: {source.container} {source.subtype} can be read but not written; name an output such as "
            f"{target.with_suffix('.flac' if source.container == 'WAV' else '.wav').name}, or convert the input first"
        )
    _check_four_gb(source, source.container, source.subtype, target)
    return OutputFormat(source.container, source.subtype)


def _estimated_bytes(source: AudioInfo, subtype: str) -> int:
    """Size of the samples, 0 where they are compressed."""
    return source.samples * source.channels * BYTES_PER_SAMPLE.get(subtype, 0)


def _check_four_gb(source: AudioInfo, container: str, subtype: str, target: Path) -> None:
    if container in _ENDS_AT_FOUR_GB and _estimated_bytes(source, subtype) > _FOUR_GB:
        raise OptionError(f"{target}: {container} ends at 4 GB and this is longer; use .wav (written as RF64) or .w64")


def check_space(source: AudioInfo, chosen: OutputFormat, target: Path) -> None:
    """Raises OutputError before hours of work where the disk cannot hold the result."""
    need = 0 if chosen.container == "FLAC" else _estimated_bytes(source, chosen.subtype)
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError:
        return
    if need > free:
        raise OutputError(
            f"{target}: the disk is full: {need / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free; "
            "free some space or choose another disk"
        )


def output_error(target: Path, error: OSError) -> OutputError:
    """What the system said, as one line that says what to do."""
    return OutputError(f"{target}: cannot be written: {_CAUSES.get(error.errno or 0, error.strerror or str(error))}")


def check_output(target: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raises OutputExistsError if `target` is one of the inputs (under any name) or exists and may not be replaced."""
    if not os.path.lexists(target):
        return
    for path in inputs:
        with contextlib.suppress(OSError):
            if os.path.samefile(path, target):
                raise OutputExistsError(f"{target}: is an input and is never replaced; choose another output")
    if target.is_dir():
        raise OutputExistsError(f"{target}: is a folder; name a file in it")
    if not overwrite:
        raise OutputExistsError(f"{target}: exists already; choose another output or add --overwrite")


@contextlib.contextmanager
def atomic_output(target: Path, inputs: Iterable[Path], *, overwrite: bool) -> Iterator[Path]:
    """A new, empty file to fill; it becomes `target` when the block ends well and is removed when it does not.

    Raises OutputExistsError as `check_output` does, and OutputError for what the file system refuses.
    """
    inputs = tuple(inputs)
    check_output(target, inputs, overwrite=overwrite)
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    part = target.parent / f".{target.name[:80]}.{secrets.token_hex(4)}.part"
    try:
        part.open("xb").close()
    except OSError as error:
        raise output_error(target, error) from error
    try:
        try:
            yield part
            with part.open("r+b") as file:
                os.fsync(file.fileno())
            check_output(target, inputs, overwrite=overwrite)  # it may have come meanwhile
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
    """libsndfile does not pass the system's reason on, so ask the disk."""
    if shutil.disk_usage(target.parent).free < 1 << 20:
        return OutputError(f"{target}: cannot be written: {_CAUSES[errno.ENOSPC]}")
    return OutputError(
        f"{target}: cannot be written any further; check the disk and the size that files may have there"
    )


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system has that."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
