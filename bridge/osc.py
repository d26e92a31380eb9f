"""The bridge's messages: OSC 1.0 addresses, their arguments, and the framing on TCP; docs/osc.md is made from it.

Every message is one OSC message, never a bundle. On TCP each has its size before it, a big-endian int32; over UDP each
is a datagram. Addresses are compared letter by letter: patterns are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from pythonosc.osc_message import OscMessage
from pythonosc.parsing import osc_types

from ..engine.errors import StemProverError

VERSION = 1
ROOT = "/stemprover"
MAX_FRAME = 1 << 20  # bytes of a message on TCP
MAX_DATAGRAM = 65507  # bytes of a message over UDP (IPv4)
MAX_CHANNELS = 8
MAX_BLOCK = 8192  # frames
REPLY_OVERHEAD = 80  # bytes of a block's reply beside its sound


class Flag(IntFlag):
    """What a block says of itself."""

    OFFLINE = 1  # wait for its repair, however long that takes
    DISCONTINUITY = 2  # what came before has nothing to do with it
    LAST = 4  # nothing follows


class Status(IntEnum):
    """What a block that comes back is."""

    WET = 0  # repaired
    LATE = 1  # untouched in part or whole: its repair came too late
    WARMING_UP = 2  # untouched in part or whole: the model is not there yet, or still has to hear more


class Code(IntEnum):
    """What an error is about."""

    MALFORMED = 1  # not an OSC message, or not one of these
    UNKNOWN_ADDRESS = 2
    ARGUMENTS = 3  # of the wrong number, type or range
    TOKEN = 4  # missing or wrong
    VERSION = 5
    BUSY = 6  # more streams than this machine carries
    NO_STREAM = 7
    TOO_LARGE = 8
    ORDER = 9  # a block twice, or behind its place
    QUEUE = 10  # more blocks at once than wait
    PRESET = 11
    PATH = 12  # outside the allowed folders, or missing
    JOB = 13
    INTERNAL = 14


class ProtocolError(StemProverError):
    """What is answered with an error message."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Message:
    """An address and its arguments, with their type tags."""

    address: str
    arguments: tuple[Any, ...] = ()
    tags: str = field(default="", compare=False)


@dataclass(frozen=True)
class Spec:
    """One address: its type tags, the names of its arguments with units, who sends it, what it is for. A tag `*` stands
    for what may follow any number of times, `?` before a tag for one that may be missing."""

    address: str
    tags: str
    names: str
    sender: str
    about: str


SPECS = (
    Spec("/hello", "isssiiii?i", "request, token, name, role, rate in Hz, maximum block in frames, channels, mixture "
         "channels, version", "client",
         "First message. role is `stream`, or `control` for a connection without sound (its last four numbers are 0). "
         "Mixture channels: 0, 1, 2 or as many as channels"),
    Spec("/ready", "iiiiiiiiis", "request, session, stream, engine rate in Hz, latency, STFT window, look-ahead, "
         "chunk, adaptation, version", "bridge",
         "Answers /hello; latency and its four parts in samples at the client's rate"),
    Spec("/block", "iihiib", "stream, sequence, position in samples, frames, flags, sound", "client",
         "Interleaved little-endian float32: each frame its channels, then its mixture channels. Flags: 1 offline "
         "(wait for the repair), 2 discontinuity, 4 last"),
    Spec("/block", "iihiiiiib", "stream, sequence, position in samples, frames, flags, status, processing time in us, "
         "latency in samples, sound", "bridge",
         "Answers /block: as many frames, `latency` samples late, without mixture channels. Status: 0 wet, 1 dry "
         "because late, 2 warming up (dry)"),
    Spec("/flush", "ii", "request, stream", "client",
         "The last `latency` samples come as /block messages of sequence -1, up to 1024 frames each, then /ack; the "
         "stream is as new"),
    Spec("/reset", "ii", "request, stream", "client", "Back to the state before the first block, with its settings"),
    Spec("/close", "ii", "request, stream", "client", "Ends the stream"),
    Spec("/stream/<n>/preset", "s?i", "name, request", "client",
         "A preset by name, or auto; cross-faded over 20 ms once the model has heard enough"),
    Spec("/stream/<n>/blend", "*sf", "preset, weight 0 to 1.5, ...", "client",
         "Several presets at once; a request may follow the last weight"),
    Spec("/stream/<n>/wet", "f?i", "share 0 to 1, request", "client",
         "Share of the preset's change, smoothed over 20 ms"),
    Spec("/stream/<n>/bypass", "i?i", "0 or 1, request", "client", "The sound as it came, as late as the repaired one"),
    Spec("/stream/<n>/quality", "s?i", "draft, standard or best, request", "client", "Steps of the sampler"),
    Spec("/ack", "isih", "request, address, stream, position in samples", "bridge",
         "A request was carried out; the position in what is sent back from which it holds"),
    Spec("/presets", "i", "request", "client", "Asks for the presets"),
    Spec("/presets", "i*ss", "request, name, title, ...", "bridge", "Answers /presets"),
    Spec("/ping", "id", "request, the client's time in s", "client", "Are you there"),
    Spec("/pong", "idddiiif", "request, the client's time, time of arrival, time of sending in s, late blocks, lost "
         "blocks, waiting blocks, load 0 to 1", "bridge", "Answers /ping; counts are of the session's streams"),
    Spec("/status", "i", "request", "client", "Asks for the state of the bridge"),
    Spec("/status", "is", "request, JSON", "bridge",
         "Answers /status; of jobs those that wait or run, and the 50 newest that ended"),
    Spec("/job/render", "isssss", "request, input file or folder, mixture or empty, output, preset, quality", "client",
         "Repairs files under the allowed folders; answered by /job"),
    Spec("/job/cancel", "is", "request, job", "client", "Stops a job; what it has finished stays"),
    Spec("/job/list", "i", "request", "client", "Asks for all jobs; a /job each, then /ack"),
    Spec("/job", "issfsds", "request or 0, job, state, share done 0 to 1, stage, seconds left or -1, text", "bridge",
         "A job's state: queued, running, done, failed or cancelled; sent by itself while it runs"),
    Spec("/error", "iiss", "request, a block's sequence, or 0, code, address, text", "bridge",
         "What went wrong; codes below"),
    Spec("/goodbye", "s", "text", "bridge", "The bridge stops; what was repaired has been sent"),
)  # fmt: skip


# python-osc's builder reads each message that it has built, as a check; a bridge that is flooded has no time for that.
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "i": osc_types.write_int, "h": osc_types.write_int64, "f": osc_types.write_float, "d": osc_types.write_double,
    "s": osc_types.write_string, "b": osc_types.write_blob, "T": lambda _: b"", "F": lambda _: b"",
}  # fmt: skip


def encode(address: str, tags: str, *values: Any) -> bytes:
    """An OSC message; one value for each type tag, which are i, h, f, d, s, b, T and F."""
    parts = [_WRITERS[tag](value) for tag, value in zip(tags, values, strict=True)]
    return b"".join((osc_types.write_string(ROOT + address), osc_types.write_string("," + tags), *parts))


def decode(data: bytes) -> Message:
    """An OSC message. Raises ProtocolError for what is none, for a bundle, and for an address pattern."""
    if data.startswith(_BLOCK_HEAD) and len(data) >= _BLOCK_SOUND:
        *numbers, size = _BLOCK_NUMBERS.unpack_from(data, len(_BLOCK_HEAD))
        if len(data) == _BLOCK_SOUND + size and size % 4 == 0:
            return Message(_BLOCK, (*numbers, data[_BLOCK_SOUND:]), "iihiib")
    if len(data) % 4 or data[:1] != b"/":
        kind = "a bundle" if data.startswith(b"#bundle") else "no OSC message"
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes that are {kind}; send one OSC message at a time")
    head = data[: data.find(b",")] if b"," in data[:256] else data[:256]
    if any(mark in head for mark in b"*?[]{}"):
        raise ProtocolError(Code.UNKNOWN_ADDRESS, "address patterns are not understood; name one address")
    try:
        tags = _tags(data)
        if strange := set(tags) - _KNOWN_TAGS:
            raise ValueError(f"type tag {min(strange)!r}")  # python-osc would skip it, and write a line of log for each
        message = OscMessage(data)
        found = Message(message.address, tuple(message.params), tags)
        whole = _size(data, found) == len(data)
    except Exception as error:  # python-osc raises what the bytes lead it to
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes that are no OSC message ({error})") from None
    if not whole:
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes are more or less than the type tags ask for")
    return found


# Most messages are blocks. They are read and written by struct: the same bytes as python-osc's, in a tenth of the time.
_BLOCK = f"{ROOT}/block"
_BLOCK_HEAD = _BLOCK.encode() + b"\0\0\0,iihiib\0"
_BLOCK_NUMBERS = struct.Struct(">iiqiii")
_BLOCK_SOUND = len(_BLOCK_HEAD) + _BLOCK_NUMBERS.size
_REPLY_HEAD = _BLOCK.encode() + b"\0\0\0,iihiiiiib\0\0"
_REPLY_NUMBERS = struct.Struct(">iiqiiiiii")


def encode_reply(*values: Any) -> bytes:
    """As encode("/block", "iihiiiiib", *values)."""
    *numbers, blob = values
    return b"".join((_REPLY_HEAD, _REPLY_NUMBERS.pack(*numbers, len(blob)), blob))


_KNOWN_TAGS = frozenset("ihfdsbrmtTFN[]")
_SIZES = {**dict.fromkeys("ifcrm", 4), **dict.fromkeys("hdt", 8)}


def _tags(data: bytes) -> str:
    """The type tags of a message, without their comma."""
    start = (data.index(0) + 4) & ~3
    if data[start : start + 1] != b",":
        raise ValueError("it has no type tags")
    return data[start + 1 : data.index(0, start)].decode("ascii")


def _size(data: bytes, message: Message) -> int:
    """Bytes that a message with these type tags and values has: python-osc reads on where a size is negative, and does
    not miss what is not there."""
    size = (data.index(0, (data.index(0) + 4) & ~3) + 4) & ~3
    values = iter(message.arguments)
    for tag in message.tags.replace("[", "").replace("]", ""):
        value: Any = next(values) if tag not in "NI" else None
        if tag in "sS":
            size += (len(value.encode()) + 4) & ~3
        elif tag == "b":
            if len(value) != struct.unpack_from(">i", data, size)[0]:
                return -1
            size += 4 + ((len(value) + 3) & ~3)
        else:
            size += _SIZES.get(tag, 0)
    return size


def framed(data: bytes) -> bytes:
    """A message with its size before it, for TCP."""
    return struct.pack(">i", len(data)) + data


class FrameReader:
    """Bytes of a TCP connection to messages: `feed`, in any pieces. Raises ProtocolError for a size over `limit`, after
    which the connection cannot be read any further."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._bytes = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes of a message that has begun."""
        return len(self._bytes)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole now."""
        self._bytes += data
        start = 0
        try:
            while len(self._bytes) - start >= 4:
                (size,) = struct.unpack_from(">i", self._bytes, start)
                if not 0 < size <= self.limit:
                    raise ProtocolError(
                        Code.TOO_LARGE, f"a message of {size} bytes; 1 to {self.limit} are read (framing: int32 size)"
                    )
                if len(self._bytes) - start - 4 < size:
                    return
                yield bytes(self._bytes[start + 4 : start + 4 + size])
                start += 4 + size
        finally:
            del self._bytes[:start]


def to_blob(sound: np.ndarray) -> bytes:
    """Sound (C, n) to interleaved little-endian float32; quickest where its memory is in that order."""
    return sound.T.astype("<f4", copy=False).tobytes()


def from_blob(blob: bytes, channels: int, frames: int) -> np.ndarray:
    """The inverse: (C, n) float32, a view of the blob, not to be written to. Raises ProtocolError where the size
    does not fit."""
    if len(blob) != 4 * channels * frames:
        raise ProtocolError(
            Code.ARGUMENTS,
            f"sound of {len(blob)} bytes; {frames} frames of {channels} channels are {4 * channels * frames}",
        )
    return np.frombuffer(blob, "<f4").reshape(frames, channels).T.astype(np.float32, copy=False)


def largest_block(channels: int, mix_channels: int) -> int:
    """Frames of a block that fit into a datagram, with its answer."""
    return (MAX_DATAGRAM - REPLY_OVERHEAD) // (4 * (channels + mix_channels))
