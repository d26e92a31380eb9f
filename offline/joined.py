"""Finds the streams in Ogg and FLAC files: several may follow each other, and libsndfile reads only the first.

Sources: RFC 3533, section 4 (Ogg), and RFC 9639 (FLAC).
"""

from __future__ import annotations

import mmap
from pathlib import Path

from .views import Layout

_FIRST, _LAST = 2, 4  # flags of a page


def read_ogg_layout(path: Path) -> Layout:
    """The streams of an Ogg file, one after another. Raises OSError."""
    size, at = path.stat().st_size, 0
    starts, ended, in_head = list[int](), False, False
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            page = file.read(27)
            lengths = file.read(page[26]) if len(page) == 27 and page[:4] == b"OggS" else b""
            end = at + 27 + len(lengths) + sum(lengths)
            if not lengths and page[:4] != b"OggS":
                break
            if len(page) < 27 or len(lengths) < page[26] or end > size:
                ended = False
                break
            if page[5] & _FIRST and not in_head:
                starts.append(at)
            in_head = bool(page[5] & _FIRST)
            ended, at = bool(page[5] & _LAST), end
    if not ended:
        return Layout(damage="is cut off or damaged: it has no last page; get a complete copy")
    notes = [f"{size - at} bytes behind the end are not audio: left out"] if at < size else []
    return _joined("Ogg", starts, at, notes)


def read_flac_layout(path: Path) -> Layout:
    """The streams of a FLAC file, one after another. Raises OSError."""
    starts = [0]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while (at := data.find(b"fLaC", at + 4)) >= 0:
            if data[at + 4 : at + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):  # stream information, 34 bytes
                starts.append(at)
        return _joined("FLAC", starts, len(data), [])


def _joined(kind: str, starts: list[int], end: int, notes: list[str]) -> Layout:
    if len(starts) == 1:
        return Layout(notes=tuple(notes))
    notes.append(f"{len(starts)} {kind} files joined into one: read one after another")
    parts = tuple((range(start, stop),) for start, stop in zip(starts, [*starts[1:], end], strict=True))
    return Layout(parts, None, tuple(notes))
