"""Shows a decoder a file other than it is stored: with another header, without what is not audio, one piece of several.

A *view* lists what the decoder is to see, in order: bytes, and ranges of bytes of the file.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

View = tuple[bytes | range, ...]


def clock(seconds: float) -> str:
    """A time in minutes and seconds, 1:02.345, or with hours, 1:00:02.345."""
    minutes, rest = divmod(round(seconds * 1000) / 1000, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:06.3f}" if hours else f"{minutes}:{rest:06.3f}"


@dataclass(frozen=True)
class Layout:
    """How a file has to be read.

    parts: views to decode one after another; none if the decoder can read the file as it is. samples: of all parts, if
    the layout tells. notes: what users should know. damage: why the file must not be used, "" if it may be.
    """

    parts: tuple[View, ...] = ()
    samples: int | None = None
    notes: tuple[str, ...] = ()
    damage: str = ""


class ViewFile(io.RawIOBase):
    """A view as a read-only file."""

    def __init__(self, path: Path, view: View) -> None:
        self._file = path.open("rb")
        self._pieces = [piece for piece in view if len(piece)]
        self._ends = list(accumulate(len(piece) for piece in self._pieces))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = self._ends[-1] if self._ends else 0
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        done = 0
        while done < len(out) and (number := bisect_right(self._ends, self._position)) < len(self._ends):
            piece = self._pieces[number]
            start = self._position - (self._ends[number] - len(piece))
            wanted = min(len(out) - done, len(piece) - start)
            if isinstance(piece, range):
                self._file.seek(piece.start + start)
                found = self._file.read(wanted)
            else:
                found = piece[start : start + wanted]
            if not found:
                break
            out[done : done + len(found)] = found
            done += len(found)
            self._position += len(found)
        return done

    def close(self) -> None:
        self._file.close()
        super().close()
