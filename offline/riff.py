"""The chunks of WAV, RF64, AIFF, Wave64 and CAF files, of which libsndfile reads only the audio.

Studios rely on chunks for broadcast time stamps (bext), markers (cue, MARK), loops (smpl, INST), names and comments
(LIST, id3, NAME, ANNO) and speaker positions (chan). They stay valid for a repaired file, which has the same rate and
length, so they are copied unchanged. Sources: Microsoft's RIFF MCI specification, EBU Tech 3306 (RF64), ITU-R BS.2088
(BW64), Apple's AIFF-C draft and Core Audio Format, Sony's Wave64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

AUDIO = {b"data", b"SSND"}
# Not copied: chunks about the encoding or the old samples (PEAK, levl) and padding. The new file has its own.
_OWN = AUDIO | {
    b"fmt ", b"fact", b"ds64", b"PEAK", b"levl", b"JUNK", b"junk", b"PAD ", b"FLLR", b"COMM", b"FVER", b"RIFF",
    b"desc", b"free", b"kuki", b"pakt", b"peak", b"ovvw", b"edct",
}  # fmt: skip
TAGS = (b"ID3", b"TAG", b"APETAGEX")  # some programs put them behind all chunks
_MOST_TAGS = 1 << 26
_COPY_BYTES = 1 << 20
_EXTENSIBLE = 0xFFFE
_W64_ID = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Dialect:
    """How a family of files writes its chunks. head: struct format of a chunk's head. first: where chunks begin.

    whole: whether sizes include the head. align: chunks begin at multiples of this.
    """

    head: str
    first: int = 12
    whole: bool = False
    align: int = 2

    @property
    def head_bytes(self) -> int:
        return struct.calcsize(self.head)

    def pack_head(self, key: bytes, size: int) -> bytes:
        return struct.pack(self.head, key, size + (self.head_bytes if self.whole else 0))


DIALECTS = {
    b"RIFF": Dialect("<4sI"), b"RIFX": Dialect(">4sI"), b"RF64": Dialect("<4sI"), b"BW64": Dialect("<4sI"),
    b"FORM": Dialect(">4sI"), b"caff": Dialect(">4sQ", first=8, align=1),
    b"riff": Dialect("<16sQ", first=40, whole=True, align=8),
}  # fmt: skip
_FAMILIES = ({b"RIFF", b"RF64", b"BW64"}, {b"RIFX"}, {b"FORM"}, {b"caff"})


@dataclass(frozen=True)
class Chunk:
    """name: four letters. start, size: of the content in bytes. key: the whole name, longer in Wave64."""

    name: bytes
    start: int
    size: int
    key: bytes = b""


@dataclass(frozen=True)
class ChunkFile:
    """All chunks of a file. `form` is RIFF, RIFX, RF64, BW64, FORM, caff or riff (Wave64).

    endless: the header does not tell the audio's size. unpadded: a chunk of odd size is not padded. end: of the last
    chunk; what follows is none.
    """

    form: bytes
    chunks: tuple[Chunk, ...]
    file_size: int
    endless: bool = False
    unpadded: bool = False
    end: int = 0

    def find(self, *names: bytes) -> Chunk | None:
        return next((chunk for chunk in self.chunks if chunk.name in names), None)

    @property
    def is_usual(self) -> bool:
        """Whether libsndfile can read it. In Wave64 it takes chunks behind the audio for audio, and misreads floats in
        the extensible format."""
        is_odd = self.endless or self.unpadded or self.rest.size or self.find(b"RIFF")
        fmt = self.find(b"fmt ")
        is_plain = bool(self.chunks) and self.chunks[-1].name in AUDIO and fmt is not None and fmt.size < 40
        return not is_odd and self.form != b"BW64" and (self.form != b"riff" or is_plain)

    @property
    def rest(self) -> Chunk:
        """What comes behind the last chunk, or the start of it if that is much."""
        return Chunk(b"", self.end, min(max(0, self.file_size - self.end), _MOST_TAGS))

    @property
    def missing_bytes(self) -> int:
        """How many bytes of the audio chunk lie beyond the end of the file."""
        audio = self.find(*AUDIO)
        return 0 if audio is None else max(0, audio.start + audio.size - self.file_size)

    @property
    def extra(self) -> list[Chunk]:
        """What belongs to the file beside the encoding of its audio."""
        return [chunk for chunk in self.chunks if chunk.name not in _OWN]


def read_chunks(path: Path) -> ChunkFile | None:
    """The chunks of a file, or None if it has none. Raises OSError."""
    file_size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(40)
        form, kind = head[:4], head[8:12]
        if form not in DIALECTS or not (
            form == b"caff" or (form == b"riff" and head[24:28] == b"wave") or kind in (b"WAVE", b"AIFF", b"AIFC")
        ):
            return None
        walk = _Walk(file, form, file_size)
        chunks = tuple(walk.chunks())
        return ChunkFile(form, chunks, file_size, walk.endless, walk.unpadded, walk.position)


class _Walk:
    def __init__(self, file: BinaryIO, form: bytes, file_size: int) -> None:
        self._file, self._form, self._file_size = file, form, file_size
        self._dialect = DIALECTS[form]
        self.position = self._dialect.first
        self.endless = self.unpadded = False

    def chunks(self) -> Iterator[Chunk]:
        size_64 = None
        while self.position < self._file_size and self._is_chunk(self.position):
            found = self._head(self.position)
            assert found is not None, "there is a chunk"
            key, size = found
            name = key[:4]
            start = self.position + self._dialect.head_bytes
            if name == b"ds64":
                self._file.seek(start)
                sizes = self._file.read(16)
                size_64 = struct.unpack("<8xQ", sizes)[0] if len(sizes) == 16 else None
            if name in AUDIO:
                if size == 0xFFFF_FFFF and size_64 is not None:
                    size = size_64
                if self._is_unknown(size, start):
                    self.endless, size = True, max(0, self._file_size - start)
            yield Chunk(name, start, size, key)
            self.position = min(self._behind(start, size), self._file_size)

    def _head(self, at: int) -> tuple[bytes, int] | None:
        if at + self._dialect.head_bytes > self._file_size:
            return None
        self._file.seek(at)
        head = self._file.read(self._dialect.head_bytes)
        key, size = struct.unpack(self._dialect.head, head)
        return key, max(0, size - len(head)) if self._dialect.whole else size

    def _is_unknown(self, size: int, start: int) -> bool:
        left = self._file_size - start
        if size == 0:
            return left > 0 and not self._is_chunk(start)
        return is_placeholder(size, left)

    def _is_chunk(self, at: int) -> bool:
        """Whether a chunk begins here, or the file ends. Only the audio may be longer than the file."""
        if at >= self._file_size:
            return True
        head = self._head(at)
        if head is None:
            return False
        name, size = head[0][:4], head[1]
        is_whole = at + self._dialect.head_bytes + size <= self._file_size
        return name in AUDIO or (is_whole and min(name) >= 0x20)

    def _behind(self, start: int, size: int) -> int:
        """Where the next chunk begins. Some writers forget the byte that makes an odd size even."""
        end = start + size
        padded = end + -size % self._dialect.align
        if padded == end or self._form == b"riff" or self._is_chain(padded) or not self._is_chain(end):
            return padded
        self.unpadded = True
        return end

    def _is_chain(self, at: int, most: int = 3) -> bool:
        """Whether several chunks follow each other here, or all up to the end."""
        if most == 0 or at >= self._file_size or not self._is_chunk(at):
            return most == 0 or at >= self._file_size
        head = self._head(at)
        assert head is not None, "a chunk has a head"
        end = at + self._dialect.head_bytes + head[1]
        return any(self._is_chain(place, most - 1) for place in {end, end + -head[1] % self._dialect.align})


def is_placeholder(size: int, left: int) -> bool:
    """Whether a writer that could not go back, as in a pipe, put this in place of the audio's size: nearly the largest
    number that fits (ffmpeg, SoX). left: how many bytes there are."""
    return size > left and any(abs(size - value) <= 8192 for value in (0x7F00_0000, 1 << 31, 1 << 32, 1 << 63, 1 << 64))


def content_of(path: Path, chunk: Chunk) -> bytes:
    """Raises OSError."""
    if not chunk.size:
        return b""
    with path.open("rb") as file:
        file.seek(chunk.start)
        return file.read(chunk.size)


def copy_chunks(source: Path, target: Path) -> int:
    """Append the chunks of `source` that are not about its encoding to `target`, and set the same speaker positions.
    Returns the number of chunks.

    Copies nothing between different families, such as WAV and AIFF. Raises OSError, after which `target` may be broken,
    so pass a temporary file.
    """
    old, new = read_chunks(source), read_chunks(target)
    if old is None or new is None or not any(old.form in family and new.form in family for family in _FAMILIES):
        return 0
    dialect = DIALECTS[new.form]
    have = {chunk.name for chunk in new.chunks} - {b"LIST"}
    extra = [chunk for chunk in old.extra if chunk.name not in have]
    rest = content_of(source, old.rest)
    with source.open("rb") as reader, target.open("r+b") as writer:
        if positions := speakers(source, old):
            fmt = new.find(b"fmt ")
            if fmt is not None and speakers(target, new):
                writer.seek(fmt.start + 20)
                writer.write(positions[:4])
                writer.seek(fmt.start + 26)
                writer.write(positions[6:])
        end = writer.seek(0, 2)
        writer.write(bytes(-end % dialect.align))
        for chunk in extra:
            writer.write(dialect.pack_head(chunk.key, chunk.size))
            reader.seek(chunk.start)
            left = chunk.size
            while left:
                piece = reader.read(min(left, _COPY_BYTES))
                writer.write(piece)
                left -= len(piece)
            writer.write(bytes(-chunk.size % dialect.align))
        total = writer.tell()
        if rest.startswith(TAGS):
            writer.write(rest)
        _set_size(writer, new, total)
        if old.form == b"BW64" and new.form == b"RF64":
            writer.seek(0)
            writer.write(b"BW64")
    return len(extra)


def _set_size(writer: BinaryIO, new: ChunkFile, total: int) -> None:
    ds64 = new.find(b"ds64")
    if new.form == b"RF64" and ds64 is not None:
        writer.seek(ds64.start)
        writer.write(struct.pack("<Q", total - 8))
    elif new.form == b"riff":
        writer.seek(16)
        writer.write(struct.pack("<Q", total))
    elif new.form != b"caff":
        writer.seek(4)
        writer.write(struct.pack(DIALECTS[new.form].head[0] + "I", min(total - 8, 0xFFFF_FFFF)))


def speakers(path: Path, found: ChunkFile) -> bytes:
    """Channel mask and sub-format (20 bytes) of WAVE_FORMAT_EXTENSIBLE; b"" for any other format. Raises OSError."""
    fmt = found.find(b"fmt ")
    content = content_of(path, fmt) if fmt is not None else b""
    order = ">" if found.form == b"RIFX" else "<"
    is_extensible = len(content) >= 40 and struct.unpack_from(order + "H", content) == (_EXTENSIBLE,)
    return content[20:40] if is_extensible else b""
