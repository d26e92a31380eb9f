"""Chunks of WAV (RIFF, RIFX, RF64) and AIFF (FORM) files: checks that the audio is complete, and copies the others.

Studios rely on chunks for broadcast time stamps (bext), markers (cue, MARK), loops (smpl, INST), names and comments
(LIST, id3, NAME, ANNO). They stay valid for a repaired file, which has the same rate and length, so they are copied
unchanged. Sources: Microsoft's RIFF MCI specification, EBU Tech 3306 (RF64), Apple's AIFF-C draft.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_HEAD = 12
_AUDIO = {b"data", b"SSND"}
# Not copied: chunks about the encoding or the old samples (PEAK, levl) and padding. The new file has its own.
_OWN = _AUDIO | {b"fmt ", b"fact", b"ds64", b"PEAK", b"levl", b"JUNK", b"junk", b"PAD ", b"FLLR", b"COMM", b"FVER"}
# Programs that cannot go back to the header, because they write to a pipe, put these as a size (ffmpeg, SoX).
_UNKNOWN_SIZES = {0xFFFF_FFFF, 0x7FFF_F000, 0x7FFF_FFFF}
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """name: four letters. start, size: of the content according to the file, in bytes."""

    name: bytes
    start: int
    size: int


@dataclass(frozen=True)
class ChunkFile:
    """All chunks of a file. `form` is RIFF, RIFX, RF64 or FORM."""

    form: bytes
    chunks: tuple[Chunk, ...]
    file_size: int

    @property
    def byte_order(self) -> str:
        return ">" if self.form in (b"RIFX", b"FORM") else "<"

    @property
    def missing_bytes(self) -> int:
        """How many bytes of the audio chunk lie beyond the end of the file."""
        for chunk in self.chunks:
            if chunk.name in _AUDIO and not (self.form != b"RF64" and chunk.size in _UNKNOWN_SIZES):
                return max(0, chunk.start + chunk.size - self.file_size)
        return 0


def read_chunks(path: Path) -> ChunkFile | None:
    """The chunks of a file, or None if it is neither WAV nor AIFF. Raises OSError."""
    file_size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if len(head) < _HEAD or (head[:4], head[8:]) not in {
            (b"RIFF", b"WAVE"), (b"RIFX", b"WAVE"), (b"RF64", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC")
        }:  # fmt: skip
            return None
        form = head[:4]
        order = ">" if form in (b"RIFX", b"FORM") else "<"
        return ChunkFile(form, tuple(_walk(file, file_size, order)), file_size)


def _walk(file: BinaryIO, file_size: int, order: str) -> Iterator[Chunk]:
    data_size_64 = None
    position = _HEAD
    while position + 8 <= file_size:
        file.seek(position)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64" and len(sizes := file.read(16)) == 16:
            data_size_64 = struct.unpack("<8xQ", sizes)[0]
        if name == b"data" and size == 0xFFFF_FFFF and data_size_64 is not None:
            size = data_size_64
        yield Chunk(name, position + 8, size)
        position += 8 + size + (size & 1)


def copy_chunks(source: Path, target: Path) -> int:
    """Append the chunks of `source` that are not audio to `target`, and return their number.

    Copies nothing between WAV and AIFF. Raises OSError, after which `target` may be broken, so pass a temporary file.
    """
    old, new = read_chunks(source), read_chunks(target)
    if old is None or new is None or (old.form == b"FORM") != (new.form == b"FORM") or old.byte_order != new.byte_order:
        return 0
    have = {chunk.name for chunk in new.chunks} - {b"LIST"}
    extra = [c for c in old.chunks if c.name not in _OWN | have and c.start + c.size <= old.file_size]
    if not extra:
        return 0
    with source.open("rb") as reader, target.open("r+b") as writer:
        end = writer.seek(0, 2)
        if end & 1:
            writer.write(b"\0")
        for chunk in extra:
            writer.write(struct.pack(f"{new.byte_order}4sI", chunk.name, chunk.size))
            reader.seek(chunk.start)
            left = chunk.size
            while left:
                piece = reader.read(min(left, _COPY_BYTES))
                writer.write(piece)
                left -= len(piece)
            if chunk.size & 1:
                writer.write(b"\0")
        total = writer.tell() - 8
        if new.form == b"RF64":
            writer.seek(next(c.start for c in new.chunks if c.name == b"ds64"))
            writer.write(struct.pack("<Q", total))
        else:
            writer.seek(4)
            writer.write(struct.pack(f"{new.byte_order}I", min(total, 0xFFFF_FFFF)))
    return len(extra)
