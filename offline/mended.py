"""Puts a correct header before the audio of chunk files whose writer made mistakes that libsndfile does not get over:

sizes that were never filled in, because the file was written to a pipe or the program crashed; missing pad bytes; bytes
behind the last chunk. BW64 is RF64 under another name.
"""

from __future__ import annotations

import struct
from pathlib import Path

from .riff import AUDIO, DIALECTS, TAGS, ChunkFile, content_of, is_placeholder
from .views import Layout, View

_ENDLESS = "no length in its header: read to the end of the file"
# What a decoder needs beside the format, and titles and names.
_NEEDED = {b"FVER", b"kuki", b"pakt", b"fact", b"LIST", b"info", b"NAME", b"AUTH", b"ANNO", b"(c) "}


def read_layout(path: Path, found: ChunkFile) -> Layout:
    """How a file with these chunks has to be read. Raises OSError."""
    notes: list[str] = []
    if found.find(*AUDIO) is None:
        return Layout()
    if any(chunk.name == b"RIFF" for chunk in found.chunks):
        notes.append("several WAV files joined into one: only the first is read")
    elif any(rest := content_of(path, found.rest)) and not rest.startswith(TAGS):
        notes.append(f"{found.file_size - found.end} bytes at the end belong to no chunk: left out")
    if found.endless:
        notes.append(_ENDLESS)
    view = _view(path, found)
    return Layout((view,) if view else (), None, tuple(notes))


def _view(path: Path, found: ChunkFile) -> View | None:
    """The audio behind a correct header."""
    audio, about = found.find(*AUDIO), found.find(b"fmt ", b"COMM", b"desc")
    if audio is None or about is None:
        return None
    dialect, content = DIALECTS[found.form], bytearray(content_of(path, about))
    if found.form == b"riff" and len(content) >= 40:  # libsndfile takes extensible floats in Wave64 for integers
        content = content[24:26] + content[2:16]
    if found.form == b"FORM" and len(content) >= 18:
        content[2:6] = struct.pack(">I", _aiff_frames(bytes(content), audio.size - 8))
    kept = [c for c in found.chunks if c.name in _NEEDED and not (found.endless and c.name == b"fact")]
    pieces = [(about.key, bytes(content)), *((chunk.key, content_of(path, chunk)) for chunk in kept)]
    with path.open("rb") as file:
        start = bytearray(file.read(dialect.first))
    is_rf64 = found.form in (b"RF64", b"BW64") or (found.form == b"RIFF" and audio.size > 0xFFFF_0000)
    if is_rf64:
        pieces.insert(0, (b"ds64", struct.pack("<QQQI", audio.size, audio.size, 0, 0)))
    body = b""
    for key, text in pieces:
        body += dialect.pack_head(key, len(text)) + text + bytes(-len(text) % dialect.align)
    body += dialect.pack_head(audio.key, 0xFFFF_FFFF if is_rf64 else audio.size)
    total = len(start) + len(body) + audio.size
    if is_rf64:
        start[:8] = b"RF64" + b"\xff" * 4
    elif found.form == b"riff":
        start[16:24] = struct.pack("<Q", total)
    elif found.form != b"caff":
        start[4:8] = struct.pack(dialect.head[0] + "I", total - 8)
    return bytes(start), body, range(audio.start, audio.start + audio.size)


def _aiff_frames(common: bytes, size: int) -> int:
    """Sample frames in `size` bytes of audio, from the COMM chunk."""
    channels, bits = struct.unpack_from(">H4xH", common)
    if common[18:22].lower() in (b"ulaw", b"alaw"):
        bits = 8
    return size // max(1, channels * ((bits + 7) // 8))


def read_au_layout(path: Path) -> Layout:
    """How an AU file has to be read. Raises OSError."""
    file_size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12).ljust(12, b"\0")
    start, size = struct.unpack_from(">II", head, 4)
    left = file_size - start
    if size == 0xFFFF_FFFF:  # means so
        return Layout()
    if left > 0 and (size == 0 or is_placeholder(size, left)):
        view = head[:8] + struct.pack(">I", 0xFFFF_FFFF), range(12, file_size)
        return Layout((view,), None, (_ENDLESS,))
    if size > left:
        return Layout(damage=f"is cut off: {size - left} bytes are missing at the end; get a complete copy")
    return Layout()
