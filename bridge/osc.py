"""The bridge's messages over OSC 1.0: one table of addresses and arguments, which encodes, checks and documents them,
and the framing on TCP.

    python -m stemprover.bridge.osc     # writes the tables of docs/osc.md

Every message is one OSC message, never a bundle. On TCP each is preceded by its size, a big-endian int32; over UDP each
is a datagram. Addresses are compared literally: patterns are refused.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pythonosc.osc_message import OscMessage
from pythonosc.parsing import osc_types

from ..engine.dsp.resample import check_rate
from ..engine.errors import StemProverError
from ..engine.stem_names import ROLES, UNKNOWN

VERSION = 1
ROOT = "/stemprover"
MAX_FRAME = 1 << 20  # bytes of a message on TCP
MAX_DATAGRAM = 65507  # bytes of a message over UDP (IPv4)
MAX_CHANNELS = 8
MAX_BLOCK = 8192  # frames
MAX_BLEND = 16  # presets
REPLY_OVERHEAD = 80  # bytes of a block's reply beside its audio


class Flag(IntFlag):
    """How a block is to be treated."""

    OFFLINE = 1  # wait for its repair, however long that takes
    DISCONTINUITY = 2  # unrelated to what came before
    LAST = 4  # nothing follows


class Status(IntEnum):
    """What a block that comes back contains."""

    WET = 0  # repaired
    LATE = 1  # dry in part or whole: its repair came too late
    WARMING_UP = 2  # dry in part or whole: the model is not loaded yet, or must still process more


class Code(IntEnum):
    """What an error is about; CODES says more."""

    MALFORMED = 1
    UNKNOWN_ADDRESS = 2
    ARGUMENTS = 3
    TOKEN = 4
    VERSION = 5
    BUSY = 6
    NO_STREAM = 7
    TOO_LARGE = 8
    ORDER = 9
    QUEUE = 10
    PRESET = 11
    PATH = 12
    JOB = 13
    INTERNAL = 14


CODES = {
    Code.MALFORMED: "not an OSC message, a bundle, or damaged",
    Code.UNKNOWN_ADDRESS: "there is no such address",
    Code.ARGUMENTS: "wrong number, type or range of arguments",
    Code.TOKEN: "the token is missing or wrong",
    Code.VERSION: "another version of this protocol",
    Code.BUSY: "this machine cannot run more streams, or there are too many connections",
    Code.NO_STREAM: "the stream is not open, or belongs to another session",
    Code.TOO_LARGE: "a message or block over its limit",
    Code.ORDER: "a block sent twice, out of order, far ahead without flag 2, or during a flush",
    Code.QUEUE: "too many blocks or requests are waiting",
    Code.PRESET: "no such preset, one that a live stream cannot use, or one that a later choice replaced",
    Code.PATH: "outside the folders that jobs may use, or missing",
    Code.JOB: "no such job, or the bridge renders no files",
    Code.INTERNAL: "a fault of the bridge; its log says more",
}


class ProtocolError(StemProverError):
    """Anything that is answered with an error message."""

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
class MessageSpec:
    """One kind of message. path: without the root; tags: OSC type tags of the arguments, where `*` marks a group that
    may be repeated and `?` an optional one; names: of the arguments, with units; sender: client or bridge; about: for
    the documentation."""

    path: str
    tags: str
    names: str
    sender: str
    about: str

    @cached_property
    def _parts(self) -> tuple[str, str, str]:
        """Tags of the required arguments, of the group that may be repeated, and of the optional one."""
        found = re.fullmatch(r"([ihfdsb]*)(?:\*([ihfdsb]+))?(?:\?([ihfdsb]))?", self.tags)
        assert found, self.tags
        return found[1] or "", found[2] or "", found[3] or ""

    @property
    def request_comes_first(self) -> bool:
        """Whether the request's number is the first argument; of a stream's settings it is the last, and optional."""
        return not self.path.startswith("/stream/")

    def tags_for(self, count: int) -> str:
        """The type tags of `count` arguments. Raises ProtocolError if that number does not fit."""
        required, group, optional = self._parts
        more = count - len(required)
        repeats, rest = divmod(max(more, 0), len(group)) if group else (0, more)
        if not 0 <= rest <= len(optional) or more < 0 or (group and not repeats and not required):
            raise ProtocolError(Code.ARGUMENTS, f"{count} arguments instead of {self.tags} ({self.names})")
        return required + group * repeats + optional[:rest]

    def request_place(self, count: int) -> int | None:
        """Where the request's number is among `count` arguments; None if it is left out."""
        if self.request_comes_first:
            return 0
        required, group, _ = self._parts
        more = count - len(required)
        return count - 1 if more > 0 and (more % len(group) if group else more) else None

    def check(self, arguments: tuple[Any, ...]) -> list[Any]:
        """The arguments as the table has them, if their number and types fit. Raises ProtocolError."""
        found: list[Any] = []
        for value, tag in zip(arguments, self.tags_for(len(arguments)), strict=True):
            found.append(converted(value, tag))
            if found[-1] is None:
                text = f"argument {len(found)} is {repr(value)[:40]}, not {_KINDS[tag]} ({self.names})"
                raise ProtocolError(Code.ARGUMENTS, text)
        return found


_KINDS = {
    "i": "a whole number of 32 bits", "h": "a whole number of 64 bits", "f": "a finite number of 32 bits",
    "d": "a finite number", "s": "a string", "b": "a blob",
}  # fmt: skip
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def converted(value: Any, tag: str) -> Any:
    """A value as its type tag has it; None if it does not fit. Many clients send only floats, so any kind of number may
    stand for any other, and true and false for 1 and 0."""
    if tag in "sb":
        return value if isinstance(value, str if tag == "s" else bytes) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if tag in "fd":
        return float(value) if tag == "d" or abs(value) <= _LARGEST_FLOAT else None
    limit = 1 << (31 if tag == "i" else 63)
    return int(value) if value == int(value) and -limit <= value < limit else None


MESSAGES = tuple(MessageSpec(*row) for row in (
    ("/hello", "isssiiii?i", "request, token, name, role, sample rate in Hz, largest block in frames, channels, "
     "mix channels, version", "client",
     "First message. The role is `stream`, or `control` for a connection without audio (the four numbers after it are "
     "0). Mix channels: 0, 1, 2 or as many as channels"),
    ("/ready", "iiiiiiiiis", "request, session, stream, model rate in Hz, latency, STFT window, look-ahead, "
     "chunk, adaptation, version", "bridge",
     "Answers /hello; the latency and its four parts in samples at the client's rate"),
    ("/block", "iihiib", "stream, sequence, position in samples, frames, flags, audio", "client",
     "Interleaved little-endian float32: each frame holds its channels, then its mix channels. Flags: 1 offline "
     "(wait for the repair), 2 discontinuity, 4 last"),
    ("/block", "iihiiiiib", "stream, sequence, position in samples, frames, flags, status, processing time in us, "
     "latency in samples, audio", "bridge",
     "Answers /block: as many frames, `latency` samples late, without mix channels. Status: 0 repaired, 1 dry because "
     "the repair was late, 2 dry: the model is not ready yet, or has failed"),
    ("/flush", "ii", "request, stream", "client",
     "The last `latency` samples come as /block messages of sequence -1, up to 1024 frames each; then the stream is "
     "reset, and /ack follows"),
    ("/reset", "ii", "request, stream", "client",
     "Back to the state before the first block, with its settings"),
    ("/close", "ii", "request, stream", "client", "Closes the stream"),
    ("/stream/<n>/preset", "s?i", "name, request", "client",
     "A preset by name, or auto; cross-faded over 20 ms once the model has processed enough"),
    ("/stream/<n>/blend", "*sf?i", "preset, weight 0 to 1.5, ..., request", "client",
     "Up to 16 presets at once"),
    ("/stream/<n>/wet", "f?i", "amount 0 to 1, request", "client",
     "How much of the preset's correction is added, smoothed over 20 ms"),
    ("/stream/<n>/bypass", "i?i", "0 or 1, request", "client", "The dry signal, as late as the repaired one"),
    ("/stream/<n>/check_mix", "i?i", "0 or 1, request", "client",
     "1, as at first: the mix is used once it is proved to contain the stem. 0: the client has proved it"),
    ("/stream/<n>/quality", "s?i", "draft, standard or best, request", "client", "Steps of the sampler"),
    ("/stream/<n>/role", "s?i", "role, request", "client",
     f"What the stem is: {', '.join(ROLES)}; {UNKNOWN}, as at first, if none fits"),
    ("/ack", "isih", "request, address, stream, position in samples", "bridge",
     "A request was carried out; it takes effect at this position of the returned audio"),
    ("/mix", "iis", "stream, state, text", "bridge",
     "Sent unasked when what is known of a stream's mix changes: 0 not proved yet, 1 in use, 2 it does not contain the "
     "stem, 3 it comes too late"),
    ("/presets", "i", "request", "client", "Asks for the presets"),
    ("/presets", "i*ss", "request, name, title, ...", "bridge", "Answers /presets"),
    ("/ping", "id", "request, the client's time in s", "client", "Asks whether the bridge is there"),
    ("/pong", "idddiiif", "request, the client's time, time of arrival, time of sending in s, late blocks, lost "
     "blocks, waiting blocks, load 0 to 1", "bridge", "Answers /ping; the counts are of the session's streams"),
    ("/status", "i", "request", "client", "Asks for the state of the bridge"),
    ("/status", "is", "request, JSON", "bridge",
     "Answers /status; lists waiting and running jobs, and the 50 that ended last"),
    ("/job/render", "isssss", "request, input file or folder, mix or empty, output, preset, quality", "client",
     "Repairs files in the allowed folders; answered by /job"),
    ("/job/cancel", "is", "request, job", "client", "Stops a job; what it has finished stays"),
    ("/job/list", "i", "request", "client", "Asks for all jobs; one /job each, then /ack"),
    ("/job", "issfsds", "request or 0, job, state, fraction done, stage, seconds left or -1, text", "bridge",
     "A job's state: queued, running, done, failed or cancelled; sent unasked while it runs"),
    ("/error", "iiss", "request, a block's sequence, or 0, code, address, text", "bridge",
     "What went wrong; codes below"),
    ("/goodbye", "s", "text", "bridge", "The bridge stops; what was repaired has been sent"),
))  # fmt: skip
FROM_CLIENT = {spec.path: spec for spec in MESSAGES if spec.sender == "client"}
FROM_BRIDGE = {spec.path: spec for spec in MESSAGES if spec.sender == "bridge"}


def client_spec(path: str) -> MessageSpec | None:
    """The client's message at a path; all streams' settings share one."""
    return FROM_CLIENT.get(re.sub(r"^/stream/[^/]*/", "/stream/<n>/", path))


# python-osc's builder parses each message it has built as a check; a flooded bridge has no time for that.
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "i": osc_types.write_int, "h": osc_types.write_int64, "f": osc_types.write_float, "d": osc_types.write_double,
    "s": osc_types.write_string, "b": osc_types.write_blob, "T": lambda _: b"", "F": lambda _: b"",
}  # fmt: skip


def to_bridge(path: str, *values: Any) -> bytes:
    """A client's message, with the type tags of the table."""
    spec = client_spec(path)
    assert spec is not None, path
    return encode(path, spec.tags_for(len(values)), *values)


def to_client(path: str, *values: Any, int32_positions: bool = False) -> bytes:
    """A bridge's message, with the type tags of the table. int32_positions: for clients without int64."""
    tags = FROM_BRIDGE[path].tags_for(len(values))
    return encode(path, tags.replace("h", "i") if int32_positions else tags, *values)


def encode(address: str, tags: str, *values: Any) -> bytes:
    """An OSC message at ROOT + address; one value for each type tag: i, h, f, d, s, b, T or F."""
    parts = [_WRITERS[tag](value) for tag, value in zip(tags, values, strict=True)]
    return b"".join((osc_types.write_string(ROOT + address), osc_types.write_string("," + tags), *parts))


def decode(data: bytes) -> Message:
    """An OSC message. Raises ProtocolError for anything else, for a bundle, and for an address pattern."""
    if data.startswith(_BLOCK_HEAD) and len(data) >= _BLOCK_AUDIO:
        *numbers, size = _BLOCK_NUMBERS.unpack_from(data, len(_BLOCK_HEAD))
        if len(data) == _BLOCK_AUDIO + size and size % 4 == 0:
            return Message(_BLOCK, (*numbers, data[_BLOCK_AUDIO:]), "iihiib")
    if len(data) % 4 or data[:1] != b"/":
        kind = "a bundle" if data.startswith(b"#bundle") else "not an OSC message"
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes are {kind}; send one OSC message at a time")
    head = data[: data.find(b",")] if b"," in data[:256] else data[:256]
    if any(mark in head for mark in b"*?[]{}"):
        raise ProtocolError(Code.UNKNOWN_ADDRESS, "address patterns are not supported; use one address")
    try:
        tags = _tags(data)
        if strange := set(tags) - _KNOWN_TAGS:
            raise ValueError(f"type tag {min(strange)!r}")  # python-osc would skip it and log a line for each
        message = OscMessage(data)
        found = Message(message.address, tuple(message.params), tags)
        whole = _size(data, found) == len(data)
    except Exception as error:  # python-osc raises anything
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes are not an OSC message ({error})") from None
    if not whole:
        raise ProtocolError(Code.MALFORMED, f"{len(data)} bytes do not match the type tags")
    return found


# Most messages are blocks: struct reads and writes the same bytes as python-osc in a tenth of the time.
_BLOCK = f"{ROOT}/block"
_BLOCK_HEAD = _BLOCK.encode() + b"\0\0\0,iihiib\0"
_BLOCK_NUMBERS = struct.Struct(">iiqiii")
_BLOCK_AUDIO = len(_BLOCK_HEAD) + _BLOCK_NUMBERS.size
_REPLY_HEAD = _BLOCK.encode() + b"\0\0\0,iihiiiiib\0\0"
_REPLY_NUMBERS = struct.Struct(">iiqiiiiii")


def encode_reply(*values: Any) -> bytes:
    """As to_client("/block", *values)."""
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
    """Size in bytes of a message with these type tags and values: python-osc itself accepts negative sizes and missing
    bytes."""
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
    """A message preceded by its size, for TCP."""
    return struct.pack(">i", len(data)) + data


class FrameReader:
    """Bytes of a TCP connection to messages: `feed` takes any pieces. Raises ProtocolError for a size over `limit`; the
    connection cannot be read after that."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._bytes = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._bytes)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete now."""
        self._bytes += data
        start = 0
        try:
            while len(self._bytes) - start >= 4:
                (size,) = struct.unpack_from(">i", self._bytes, start)
                if not 0 < size <= self.limit:
                    raise ProtocolError(
                        Code.TOO_LARGE,
                        f"a message of {size} bytes; 1 to {self.limit} are accepted (framing: int32 size)",
                    )
                if len(self._bytes) - start - 4 < size:
                    return
                yield bytes(self._bytes[start + 4 : start + 4 + size])
                start += 4 + size
        finally:
            del self._bytes[:start]


def to_blob(audio: np.ndarray) -> bytes:
    """Audio (C, n) to interleaved little-endian float32; fastest if its memory is in that order."""
    return audio.T.astype("<f4", copy=False).tobytes()


def from_blob(blob: bytes, channels: int, frames: int) -> np.ndarray:
    """The inverse: (C, n) float32, a read-only view of the blob. Raises ProtocolError if the size does not fit."""
    if len(blob) != 4 * channels * frames:
        raise ProtocolError(
            Code.ARGUMENTS,
            f"audio of {len(blob)} bytes; {frames} frames of {channels} channels are {4 * channels * frames}",
        )
    return np.frombuffer(blob, "<f4").reshape(frames, channels).T.astype(np.float32, copy=False)


def largest_block(channels: int, mix_channels: int) -> int:
    """Frames of a block that fit into a datagram, as does its answer."""
    return (MAX_DATAGRAM - REPLY_OVERHEAD) // (4 * (channels + mix_channels))


@dataclass(frozen=True)
class StreamFormat:
    """The audio format that a /hello asks for: sample_rate in Hz, max_block in frames. Raises OptionError or
    ProtocolError for values that are not possible."""

    sample_rate: int
    max_block: int
    channels: int
    mix_channels: int

    def __post_init__(self) -> None:
        check_rate(self.sample_rate)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ProtocolError(Code.ARGUMENTS, f"channels={self.channels}: use 1 to {MAX_CHANNELS}")
        if self.mix_channels not in (0, 1, 2, self.channels):
            raise ProtocolError(
                Code.ARGUMENTS,
                f"mix channels={self.mix_channels}: use 0, 1, 2 or {self.channels} (the stem's)",
            )
        if not 1 <= self.max_block <= MAX_BLOCK:
            raise ProtocolError(Code.ARGUMENTS, f"largest block of {self.max_block} frames: use 1 to {MAX_BLOCK}")

    @property
    def has_mix(self) -> bool:
        """Whether the mix comes beside the stem."""
        return self.mix_channels > 0

    def mix_for_stem(self, mix: np.ndarray) -> np.ndarray:
        """Mix channels (M, n) as many as the stem has (C, n)."""
        if len(mix) == self.channels:
            return mix
        return np.repeat(mix.mean(axis=0, keepdims=True, dtype=np.float32), self.channels, axis=0)


# The documentation: the tables between these marks in docs/osc.md are written from the ones above.
_MARKS = ("<!-- {} -->", "<!-- end of {} -->")


def documented(text: str) -> str:
    """The text of docs/osc.md with its tables of messages and error codes written anew."""
    rows = [(f"`{s.path}`", f"`{s.tags}`", s.names, s.sender, s.about) for s in MESSAGES]
    codes = [(str(code.value), code.name.lower().replace("_", " "), about) for code, about in CODES.items()]
    text = _with_table(text, "messages", ("address", "types", "arguments", "from", ""), rows)
    return _with_table(text, "codes", ("code", "name", ""), codes)


def _with_table(text: str, name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first, last = (mark.format(name) for mark in _MARKS)
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, ["---"] * len(head), *rows)]
    before, rest = text.split(first)
    return before + "\n".join([first, "", *lines, "", last]) + rest.split(last)[1]


if __name__ == "__main__":
    _DOCS = Path(__file__).parents[1] / "docs" / "osc.md"
    _DOCS.write_text(documented(_DOCS.read_text()))
