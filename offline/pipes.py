"""Reads standard input and pipes into temporary files, because a repair reads its inputs more than once."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import soundfile

from ..engine.errors import AudioFileError
from . import mp3
from .riff import read_chunks

_PIECE_BYTES = 1 << 20
_KEPT_FREE_BYTES = 1 << 28  # of the temporary disk, for everybody else


@contextlib.contextmanager
def regular_files(paths: Iterable[Path | None]) -> Iterator[dict[Path | None, Path]]:
    """Maps each pipe among `paths` to a temporary file with its content, which is deleted at the end.

    A single hyphen is standard input, unless there is a file of this name. Raises AudioFileError for terminals and
    devices, for what is not audio, and if it does not fit on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="stemprover-") as folder:
        found: dict[Path | None, Path] = {}
        for path in paths:
            if path is None or path in found:
                continue
            source = Path("/dev/stdin") if path == Path("-") and not path.exists() else path
            if source != path or _is_special(source):
                found[path] = Path(folder) / str(len(found)) / source.name
                found[path].parent.mkdir()
                _copy(source, found[path])
        yield found


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # the error is reported where the file is opened
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _copy(source: Path, target: Path) -> None:
    if stat.S_ISCHR(mode := source.stat().st_mode) or stat.S_ISBLK(mode):
        raise AudioFileError(
            f"{source} is a terminal or a device; name a file, or pipe one in, as in "
            f"cat stem.wav | stemprover repair {source} -o out.wav"
        )
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            _copy_pieces(reader, writer, source, target)
    except OSError as error:
        place = tempfile.gettempdir()
        raise AudioFileError(f"{source} cannot be read into {place} ({error.strerror or error})") from error


def _copy_pieces(reader: BinaryIO, writer: BinaryIO, source: Path, target: Path) -> None:
    number = 0
    while piece := reader.read(_PIECE_BYTES):
        writer.write(piece)
        if number == 0 and len(piece) == _PIECE_BYTES:  # not all of an endless stream of something else
            writer.flush()
            if not _may_be_audio(target):
                raise AudioFileError(f"{source} is not readable audio; use WAV or FLAC")
        if number % 16 == 0 and shutil.disk_usage(target.parent).free < _KEPT_FREE_BYTES:
            raise AudioFileError(
                f"{source} does not fit into {tempfile.gettempdir()}: {writer.tell() / 1e6:.0f} MB were read; set "
                "TMPDIR to a folder with more space, or name a file"
            )
        number += 1


def _may_be_audio(start: Path) -> bool:
    if read_chunks(start) is not None or mp3.read_layout(start) is not None:
        return True
    try:
        with soundfile.SoundFile(start):
            return True
    except soundfile.SoundFileError:
        return False
