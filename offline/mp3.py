"""Finds the frames of an MPEG audio file (MP3, MP2, MP1), and so its exact length and where it is cut off or joined.

libsndfile's decoder (mpg123) guesses the length of a file without a Xing or Info frame, and stops where the first such
frame says, even if another file follows. So it gets each piece by itself, behind an Info frame with the true number of
frames. Sources: ISO/IEC 11172-3 and 13818-3 (frames), http://gabriel.mp3-tech.org/mp3infotag.html (Info frames).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

from .views import Layout, View, clock

_RATES_HZ = (44100, 48000, 32000)
_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # (version, layer); version 2 is also 2.5
_OTHER_FILES = (b"fLaC", b"OggS", b"RIFF", b"FORM")  # may follow an ID3 tag
_MOST_JUNK = 1 << 22  # bytes before the first frame, as of a tag that is longer than it says
_MOST_FREE = 1 << 13  # bytes of a frame of free format
_DECODER_DELAY = 529  # samples by which a decoder of layer III is late; mpg123 leaves them out with the encoder's
_INFO_ROOM = 156  # bytes of an Info frame behind its side information


@dataclass(frozen=True)
class _Header:
    """The first four bytes of a frame. size: of the frame in bytes, 0 if it is of free format."""

    version: int
    layer: int
    rate_hz: int
    mono: bool
    size: int
    padding: int

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """What is the same in all frames of a file."""
        return self.version, self.layer, self.rate_hz, self.mono

    @property
    def samples(self) -> int:
        return {1: 384, 2: 1152, 3: 1152 // self.version}[self.layer]

    @property
    def info_at(self) -> int:
        """Where the letters Xing or Info are, behind the side information."""
        return 4 + {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}[self.version, self.mono]

    @classmethod
    def read(cls, data: bytes | mmap.mmap, at: int) -> _Header | None:
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] < 0xE0:
            return None
        second, third = data[at + 1], data[at + 2]
        family, layer, bitrate, rate = second >> 3 & 3, 4 - (second >> 1 & 3), third >> 4, third >> 2 & 3
        if family == 1 or layer == 4 or bitrate == 15 or rate == 3:
            return None
        version, padding = 1 if family == 3 else 2, third >> 1 & 1
        rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[family]
        slot = 4 if layer == 1 else 1
        size = 0
        if bitrate:
            slots = {1: 12, 2: 144, 3: 144 // version}[layer] * 1000 * _KBPS[version, layer][bitrate - 1] // rate_hz
            size = (slots + padding) * slot
        return cls(version, layer, rate_hz, data[at + 3] >> 6 == 3, size, padding * slot)


@dataclass
class _Piece:
    """Frames that belong together: what follows an Info frame, or all if there is none. info: that frame, or b""."""

    head: bytes
    header: _Header
    size: int
    info: bytes
    ranges: list[range] = field(default_factory=list)
    frames: int = 0

    def add(self, start: int, size: int) -> None:
        if self.ranges and self.ranges[-1].stop == start:
            start, size = self.ranges[-1].start, len(self.ranges.pop()) + size
        self.ranges.append(range(start, start + size))
        self.frames += 1

    @property
    def promised(self) -> int | None:
        """The number of frames according to the Info frame."""
        tag = self.info[self.header.info_at :]
        return struct.unpack_from(">I", tag, 8)[0] if len(tag) >= 12 and tag[7] & 1 else None

    @property
    def encoder(self) -> bytes:
        """The encoder's part of the Info frame, with its name, delay and padding; b"" without."""
        tag = self.info[self.header.info_at :]
        if len(tag) < 8:
            return b""
        at = 8 + sum(size for bit, size in enumerate((4, 4, 100, 4)) if tag[7] >> bit & 1)
        made = bytearray(tag[at : at + 36])
        if len(made) < 24 or not made[0]:
            return b""
        if self.frames != self.promised:  # it goes on where the encoder's padding would be
            made[22:24] = made[22] & 0xF0, 0
        return bytes(made)

    @property
    def samples(self) -> int:
        made, total = self.encoder, self.frames * self.header.samples
        if not made:
            return total
        delay, padding = made[21] << 4 | made[22] >> 4, (made[22] & 15) << 8 | made[23]
        return max(0, total - delay - _DECODER_DELAY - max(padding - _DECODER_DELAY, 0))

    def view(self) -> View:
        """For layer III, behind an Info frame. mpg123 then leaves out at least its own delay: where the encoder's is
        unknown, that is made up to a frame of silence, which comes first."""
        at, samples = self.header.info_at, self.header.samples
        bits = int.from_bytes(self.head) & ~(1 << 9) | 1 << 16  # no padding, no checksum
        size = self.size - self.header.padding
        while self.header.size and size < at + _INFO_ROOM and bits >> 12 & 15 < 14:
            bits += 1 << 12
            better = _Header.read(bits.to_bytes(4), 0)
            assert better is not None, "only the bitrate differs"
            size = better.size
        if self.header.layer != 3 or size < at + _INFO_ROOM:
            return tuple(self.ranges)
        head = bits.to_bytes(4)
        if encoder := self.encoder:
            silence, frames = b"", self.frames
        else:
            silence, frames = head.ljust(size, b"\0"), self.frames + 1
            encoder = b"any".ljust(21) + (samples - _DECODER_DELAY << 12).to_bytes(3)
        info = head.ljust(at, b"\0") + b"Info" + struct.pack(">II", 1, frames) + encoder
        return (info.ljust(size, b"\0"), silence, *self.ranges)


def read_layout(path: Path) -> Layout | None:
    """The pieces of an MPEG audio file, or None if it is none. Raises OSError."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Walk(data).layout()


class _Walk:
    """Goes through a file frame by frame."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._end = data, _end_of_audio(data)
        self._free_size = 0
        self._pieces: list[_Piece] = []
        self._notes: list[str] = []

    def layout(self) -> Layout | None:
        at = start = self._behind_tags(0)
        if self._data[at : at + 4] in _OTHER_FILES:
            return None
        first = self._find(at, at + _MOST_JUNK, None)
        if first is None:
            return None
        if damage := self._collect(first):
            return Layout(damage=damage)
        for piece in self._pieces:
            missing = (piece.promised or 0) - piece.frames
            if missing > (0 if piece.encoder else 1):  # some old encoders counted the Info frame too
                missing_s = missing * piece.header.samples / piece.header.rate_hz
                return Layout(damage=f"is cut off or damaged: {clock(missing_s)} is missing; get a complete copy")
        pieces = [piece for piece in self._pieces if piece.frames]
        if len(pieces) > 1:
            self._notes.append(f"{len(pieces)} MP3 files joined into one: read one after another")
        views = [piece.view() for piece in pieces]
        if views:  # with the tags, from which libsndfile has a title and the like
            has_id3v1 = self._data[-128:-125] == b"TAG"
            views[0] = range(start), *views[0], self._data[-128:] if has_id3v1 else b""
        return Layout(tuple(views), sum(piece.samples for piece in pieces), tuple(self._notes))

    def _collect(self, at: int) -> str:
        """Sort all frames into pieces. Returns why that is impossible, or ""."""
        kind = None
        while at < self._end:
            header = _Header.read(self._data, at)
            if header is None or header.kind != (kind or header.kind):
                if header is not None and self._is_chain(at, None):
                    return f"changes its sample rate or channels at {self._clock()}; cut it in two there"
                found = self._skip(at, kind)
                if self._pieces and self._end - at < 4 and self._pieces[0].head.startswith(self._data[at : self._end]):
                    return f"is cut off at {self._clock()}, in a frame; get a complete copy"
                if any(self._data[at:found]) and self._behind_tags(at) == at:
                    if found < self._end:
                        return f"is damaged: {found - at} bytes at {self._clock()} are not audio; get a complete copy"
                    self._notes.append(f"{found - at} bytes at the end are not audio: left out")
                at = found
                continue
            kind, size = header.kind, self._size(at, header)
            if at + size > self._end:
                missing = at + size - self._end
                return f"is cut off: {missing} bytes are missing at the end; get a complete copy"
            if not self._may_start(at + size, kind) and self._find(at + 4, at + size, kind) is not None:
                return f"is damaged: a frame at {self._clock()} is cut off; get a complete copy"
            info = self._data[at : at + size]
            is_info = header.layer == 3 and info[header.info_at :][:4] in (b"Xing", b"Info")
            if is_info or not self._pieces:
                self._pieces.append(_Piece(info[:4], header, size, info if is_info else b""))
            if not is_info:
                self._pieces[-1].add(at, size)
            at += size
        return ""

    def _skip(self, at: int, kind: tuple[int, int, int, bool] | None) -> int:
        """The place behind tags, or behind bytes that are no frame."""
        behind = self._behind_tags(at)
        if behind > at:
            return behind
        found = self._find(at, self._end, kind)
        return self._end if found is None else found

    def _find(self, at: int, end: int, kind: tuple[int, int, int, bool] | None) -> int | None:
        """The first place before `end` where frames begin."""
        end = min(end, self._end)
        while (at := self._data.find(b"\xff", at, end)) >= 0:
            if self._is_chain(at, kind):
                return at
            at += 1
        return None

    def _is_chain(self, at: int, kind: tuple[int, int, int, bool] | None) -> bool:
        """Whether several frames of one kind follow each other here, or all up to the end."""
        self._free_size = self._free_size if kind else 0
        for number in range(3):
            header = _Header.read(self._data, at)
            if header is None or header.kind != (kind or header.kind) or not (size := self._size(at, header)):
                return number > 0 and (at >= self._end or self._behind_tags(at) > at)
            kind = header.kind
            at += size
            if at > self._end:
                return number > 0
        return True

    def _may_start(self, at: int, kind: tuple[int, int, int, bool]) -> bool:
        header = _Header.read(self._data, at)
        return at >= self._end or (header is not None and header.kind == kind) or self._behind_tags(at) > at

    def _size(self, at: int, header: _Header) -> int:
        """Bytes of the frame at `at`; 0 if it is of free format and no other follows."""
        if header.size:
            return header.size
        if not self._free_size:
            start = self._data[at : at + 2]
            place = at + 4
            while (place := self._data.find(start, place, min(at + _MOST_FREE, self._end))) >= 0:
                other = _Header.read(self._data, place)
                if other is not None and not other.size and other.kind == header.kind:
                    self._free_size = place - at - header.padding
                    break
                place += 1
        return self._free_size + header.padding if self._free_size else 0

    def _behind_tags(self, at: int) -> int:
        """The place behind all tags that begin at `at`."""
        while (size := _tag_size(self._data, at)) and at + size <= len(self._data):
            at += size
        return at

    def _clock(self) -> str:
        return clock(sum(p.frames * p.header.samples / p.header.rate_hz for p in self._pieces))


def _tag_size(data: mmap.mmap, at: int) -> int:
    """Bytes of the ID3 or APE tag at `at`; 0 if there is none."""
    start = data[at : at + 32]
    if start[:3] == b"ID3" and len(start) >= 10 and max(start[6:10]) < 0x80:
        size = start[6] << 21 | start[7] << 14 | start[8] << 7 | start[9]
        return 10 + size + (10 if start[5] & 0x10 else 0)
    if start[:3] == b"TAG":
        return 128
    if start[:8] == b"APETAGEX" and len(start) == 32:
        return 32 + (struct.unpack_from("<I", start, 12)[0] if start[23] & 0x20 else 0)
    return 0


def _end_of_audio(data: mmap.mmap) -> int:
    """Where the tags at the end begin: ID3v1, APE, Lyrics3."""
    end = len(data)
    while True:
        if end >= 128 and data[end - 128 : end - 125] == b"TAG":
            end -= 128
        elif end >= 32 and data[end - 32 : end - 24] == b"APETAGEX":
            size, flags = struct.unpack_from("<I4xI", data, end - 20)
            end -= size + (32 if flags >> 31 else 0)
        elif end >= 15 and data[end - 9 : end] == b"LYRICS200" and data[end - 15 : end - 9].isdigit():
            end -= int(data[end - 15 : end - 9]) + 15
        else:
            return max(end, 0)
