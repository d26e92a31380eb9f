"""One session of the bridge: the messages of a TCP connection, or of an address that sends datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ...engine.constants import MODEL_RATE
from ...engine.errors import StemProverError
from ..osc import (
    MAX_DATAGRAM,
    REPLY_OVERHEAD,
    ROOT,
    VERSION,
    Code,
    Message,
    ProtocolError,
    decode,
    encode,
    encode_reply,
    from_blob,
    largest_block,
    to_blob,
)
from .audio_format import Format
from .jobs import Job
from .parameters import PARAMETERS
from .registry import Hub, log
from .selection import SupersededError
from .stream import Answer, Stream

_LOG = logging.getLogger("stemprover.bridge")
MOST_TASKS = 64  # requests of one session that may be under way
MOST_STREAMS = 16
_KINDS = {"i": int, "h": int, "f": float, "d": float, "s": str, "b": bytes}


class Peer:
    """`handle` takes a message, `send` is called with each answer. `datagrams`: it speaks UDP, so that blocks have to
    fit."""

    def __init__(self, hub: Hub, where: str, send: Callable[[bytes], None], *, datagrams: bool) -> None:
        self.hub, self.where, self._send, self.datagrams = hub, where, send, datagrams
        self.session = hub.new_session()
        self.greeted = self.known = False  # said hello; said anything of use
        self.streams: dict[int, Stream] = {}
        self.faults = 0  # messages that were no use
        self.last_heard = time.monotonic()
        self._long = "h"  # type tag of positions: that which the client uses, since some know no int64
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = self._opening = False

    def handle(self, data: bytes) -> None:
        """One message; what is wrong with it is answered, and harms nothing."""
        self.last_heard = arrived = time.monotonic()
        message = Message("")
        try:
            message = decode(data)
            self._dispatch(message, arrived)
        except ProtocolError as error:
            self.fail(_request_of(message), error.code, message.address, str(error))
        except StemProverError as error:
            self.fail(_request_of(message), Code.ARGUMENTS, message.address, str(error))
        except Exception:  # a client must not be able to end the bridge
            _LOG.exception("event=internal session=%d", self.session)
            text = "the bridge failed at this message; its log says more"
            self.fail(_request_of(message), Code.INTERNAL, message.address, text)

    def send(self, address: str, tags: str, *values: Any) -> None:
        """A message to the client."""
        if not self._closed:
            self._send(encode(address, tags, *values))

    def fail(self, request: int, code: Code, address: str, text: str, *, is_fault: bool = True) -> None:
        """An error to the client; is_fault: it counts against the connection."""
        self.faults += is_fault
        shown = "".join(letter if letter.isprintable() else "?" for letter in address[:120])
        self.send("/error", "iiss", request, int(code), shown.encode("ascii", "replace").decode(), _plain(text))

    def close(self) -> None:
        """The client is gone: its streams end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for stream in list(self.streams.values()):
            self.hub.close(stream)
        self.streams.clear()
        if self.hub.jobs is not None:
            self.hub.jobs.listeners.discard(self.tell_job)

    # messages

    def _dispatch(self, message: Message, arrived: float) -> None:
        address, arguments = message.address, message.arguments
        if not address.startswith(ROOT + "/"):
            raise ProtocolError(Code.UNKNOWN_ADDRESS, f"there is no {address[:80]!r}; see docs/osc.md")
        path = address[len(ROOT) :]
        if path == "/block":
            self._long = "i" if message.tags[2:3] == "i" else "h"
            self._block(*(arguments if message.tags == "iihiib" else _checked(arguments, "iihiib")))
            return
        if path == "/hello":
            self._hello(arguments)
            return
        if not self.greeted and self.hub.config.token:
            raise ProtocolError(Code.TOKEN, "say /hello with the token first")
        self.known = True
        if path == "/ping":
            self._ping(arguments, arrived)
        elif path in _REQUESTS:
            request, *rest = _checked(arguments, _REQUESTS[path])
            self._check_tasks()
            self._start(request, address, getattr(self, "_on" + path.replace("/", "_"))(request, *rest))
        elif path.startswith("/stream/"):
            self._parameter(path, address, arguments)
        else:
            raise ProtocolError(Code.UNKNOWN_ADDRESS, f"there is no {address[:80]!r}; see docs/osc.md")

    def _hello(self, arguments: tuple[Any, ...]) -> None:
        head = _checked(arguments[:8], "isssiiii")
        request, token, name, role, rate, max_block, channels, mix_channels = head
        with self._answering(request, ROOT + "/hello"):
            version = _checked(arguments[8:], "i")[0] if len(arguments) > 8 else VERSION
            if version != VERSION:
                raise ProtocolError(Code.VERSION, f"version {version} of the protocol; this bridge speaks {VERSION}")
            self.hub.check_token(token)
            if role not in ("stream", "control"):
                raise ProtocolError(Code.ARGUMENTS, f"role {role[:40]!r}: say stream or control")
            self.greeted = self.known = True
            if role == "control":
                self.send("/ready", "iiiiiiiiis", request, self.session, 0, MODEL_RATE, 0, 0, 0, 0, 0, str(VERSION))
                return
            form = Format(rate, max_block, channels, mix_channels)
            if self.datagrams and max_block > (most := largest_block(channels, mix_channels)):
                raise ProtocolError(
                    Code.TOO_LARGE,
                    f"blocks of {max_block} frames do not fit into a datagram ({MAX_DATAGRAM} bytes); "
                    f"split them into {most} frames or less, or use TCP",
                )
            if self._opening:
                raise ProtocolError(Code.QUEUE, "a /hello is under way; wait for its /ready")
            self._check_room()
            self._start(request, ROOT + "/hello", self._open(request, name[:80], form))
            self._opening = True

    def _check_room(self) -> None:
        self.streams = {number: stream for number, stream in self.streams.items() if not stream.closed}
        if len(self.streams) >= (MOST_STREAMS if self.datagrams else 1):
            raise ProtocolError(Code.BUSY, "one stream for each connection; open another connection")

    async def _open(self, request: int, name: str, form: Format) -> None:
        try:
            await self.hub.measure(form.sample_rate)
        finally:
            self._opening = False
        stream = self.hub.open(
            name, form, lambda answer: self._answer(stream, answer), datagrams=self.datagrams
        )
        self.streams[stream.number] = stream
        parts = stream.latency
        self.send(
            "/ready", "iiiiiiiiis", request, self.session, stream.number, MODEL_RATE, parts.total, parts.window,
            parts.lookahead, parts.chunk, parts.adaptation, str(VERSION),
        )  # fmt: skip

    def _block(self, number: int, sequence: int, position: int, frames: int, flags: int, blob: bytes) -> None:
        stream = self.streams.get(number)
        if stream is None or stream.closed:
            raise ProtocolError(Code.NO_STREAM, f"stream {number} is not one of this session's")
        if not 1 <= frames <= stream.format.max_block:
            raise ProtocolError(
                Code.TOO_LARGE, f"a block of {frames} frames; this stream takes 1 to {stream.format.max_block}"
            )
        if not sequence >= 0 or not -(1 << 53) < position < 1 << 53:
            raise ProtocolError(Code.ARGUMENTS, f"block {sequence} at {position}: both count up from 0 or any number")
        if stream.crowded and self.datagrams:
            raise ProtocolError(Code.QUEUE, f"{stream.queued} blocks wait; wait for their answers")
        sound = from_blob(blob, stream.format.channels + stream.format.mix_channels, frames)
        stream.push(sequence, position, flags, sound)

    @property
    def crowded(self) -> bool:
        """Whether no more should be read for now."""
        return any(stream.crowded for stream in self.streams.values())

    def _answer(self, stream: Stream, answer: Answer) -> None:
        if self._closed:
            return
        values = (
            stream.number, answer.sequence, answer.position, answer.sound.shape[1], answer.flags, int(answer.status),
            min(int(answer.seconds * 1e6), (1 << 31) - 1), stream.latency.total, to_blob(answer.sound),
        )  # fmt: skip
        tag = self._tag(answer.position)
        self._send(encode_reply(*values) if tag == "h" else encode("/block", "iiiiiiiib", *values))

    def _ping(self, arguments: tuple[Any, ...], arrived: float) -> None:
        request, theirs = _checked(arguments, "id")
        mine = [stream.counters for stream in self.streams.values()]
        queued = sum(stream.queued for stream in self.streams.values())
        load = sum(s.counters.load for s in self.hub.streams.values()) / self.hub.processors
        self.send(
            "/pong", "idddiiif", request, theirs, arrived, time.monotonic(), sum(c.late for c in mine),
            sum(c.lost for c in mine), queued, float(load),
        )  # fmt: skip

    def _parameter(self, path: str, address: str, arguments: tuple[Any, ...]) -> None:
        parts = path.split("/")  # "", "stream", number, name
        known = len(parts) == 4 and (parts[3] in PARAMETERS or parts[3] == "blend")
        if not known or not parts[2].isdecimal() or len(parts[2]) > 9:
            raise ProtocolError(Code.UNKNOWN_ADDRESS, f"there is no {address[:80]!r}; see docs/osc.md")
        stream, name = self.hub.stream(int(parts[2])), parts[3]
        if name == "blend":
            request, weights = _blend(arguments)
            self._start(request, address, self._set(request, address, stream, stream.selection.blend(weights)))
            return
        parameter = PARAMETERS[name]
        if arguments and isinstance(arguments[0], bool):
            arguments = (int(arguments[0]), *arguments[1:])
        value, *rest = _checked(arguments, parameter.tag + "i" * (len(arguments) - 1))
        request = rest[0] if rest else 0
        with self._answering(request, address):
            held = parameter.set(stream, value)
            if isinstance(held, int):
                self._acknowledge(request, address, stream.number, held)
            else:
                self._start(request, address, self._set(request, address, stream, held))

    async def _set(self, request: int, address: str, stream: Stream, change: Coroutine[Any, Any, int]) -> None:
        position = await change
        now = stream.selection
        log("set", stream=stream.number, address=address, preset=now.name, quality=now.quality)
        self._acknowledge(request, address, stream.number, position)

    def _acknowledge(self, request: int, address: str, number: int, position: int) -> None:
        self.send("/ack", f"isi{self._tag(position)}", request, address, number, position)

    def _tag(self, position: int) -> str:
        return self._long if abs(position) < 1 << 31 else "h"

    # These begin before the next message is looked at; what they return waits for their end.

    def _on_flush(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        return self._when(stream.flush(), request, "/flush", stream)

    def _on_reset(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        return self._when(stream.reset(), request, "/reset", stream)

    def _on_close(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        position = stream.position
        del self.streams[number]
        self.hub.close(stream)

        async def ended() -> None:
            self._acknowledge(request, ROOT + "/close", number, position)

        return ended()

    async def _when(self, work: Coroutine[Any, Any, None], request: int, path: str, stream: Stream) -> None:
        await work
        self._acknowledge(request, ROOT + path, stream.number, stream.position)

    async def _on_presets(self, request: int) -> None:
        titles = await self.hub.titles()
        self.send("/presets", "i" + "ss" * len(titles), request, *(_plain(text) for pair in titles for text in pair))

    async def _on_status(self, request: int) -> None:
        self.send("/status", "is", request, self.hub.status_json())

    async def _on_job_render(
        self, request: int, source: str, mix: str, output: str, preset: str, quality: str
    ) -> None:
        jobs = self._jobs()
        job = await jobs.add(source, mix, output, preset, quality)
        jobs.listeners.add(self.tell_job)
        self.tell_job(job, request)

    async def _on_job_cancel(self, request: int, number: str) -> None:
        self.tell_job(await self._jobs().cancel(number), request)

    async def _on_job_list(self, request: int) -> None:
        jobs = self._jobs()
        for job in jobs.list():
            self.tell_job(job, request)
        jobs.listeners.add(self.tell_job)
        self._acknowledge(request, ROOT + "/job/list", 0, 0)

    def tell_job(self, job: Job, request: int = 0) -> None:
        """A job's state to the client."""
        left = -1.0 if job.seconds_left is None else job.seconds_left
        self.send(
            "/job", "issfsds", request, job.number, job.state, float(job.fraction), _plain(job.stage), left,
            _plain(job.text),
        )  # fmt: skip

    def _jobs(self) -> Any:
        if self.hub.jobs is None:
            raise ProtocolError(Code.JOB, "this bridge renders no files; start it with --root FOLDER")
        return self.hub.jobs

    def _own(self, number: int) -> Stream:
        stream = self.streams.get(number)
        if stream is None or stream.closed:
            raise ProtocolError(Code.NO_STREAM, f"stream {number} is not one of this session's")
        return stream

    def _check_tasks(self) -> None:
        """Before anything of a request begins. Raises ProtocolError."""
        if len(self._tasks) >= MOST_TASKS:
            raise ProtocolError(Code.QUEUE, f"{len(self._tasks)} requests are under way; wait for their answers")

    def _start(self, request: int, address: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._check_tasks()
        except ProtocolError:
            work.close()
            raise
        async def run() -> None:
            with self._answering(request, address):
                await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answering(self, request: int, address: str) -> contextlib.AbstractContextManager[None]:
        return _Answering(self, request, address)


class _Answering(contextlib.AbstractContextManager[None]):
    """Turns what is raised inside into an error message with the request's number."""

    def __init__(self, peer: Peer, request: int, address: str) -> None:
        self.peer, self.request, self.address = peer, request, address

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None or isinstance(error, asyncio.CancelledError):
            return False
        if isinstance(error, ProtocolError):
            overtaken = isinstance(error, SupersededError)  # faders that move fast are no fault
            self.peer.fail(self.request, error.code, self.address, str(error), is_fault=not overtaken)
        elif isinstance(error, StemProverError):
            code = Code.PRESET if self.address.endswith(("/preset", "/blend")) else Code.ARGUMENTS
            self.peer.fail(self.request, code, self.address, str(error))
        elif isinstance(error, Exception):
            _LOG.error("event=internal address=%s", self.address, exc_info=error)
            self.peer.fail(self.request, Code.INTERNAL, self.address, "the bridge failed at this; its log says more")
        else:
            return False
        return True


_REQUESTS = {
    "/flush": "ii", "/reset": "ii", "/close": "ii", "/presets": "i", "/status": "i",
    "/job/render": "isssss", "/job/cancel": "is", "/job/list": "i",
}  # fmt: skip


def _request_of(message: Message) -> int:
    """The request that a message carries, if it does: a parameter's comes last, a block's is its sequence, any other's
    comes first."""
    place = -1 if message.address.startswith(ROOT + "/stream/") else 1 if message.address == ROOT + "/block" else 0
    value = message.arguments[place] if len(message.arguments) > max(place, 0) else 0
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31 else 0


def _checked(arguments: tuple[Any, ...], tags: str) -> list[Any]:
    """The arguments, if they are of these types. Raises ProtocolError."""
    if len(arguments) != len(tags):
        raise ProtocolError(Code.ARGUMENTS, f"{len(arguments)} arguments in place of {len(tags)} ({tags})")
    found: list[Any] = []
    for value, tag in zip(arguments, tags, strict=True):
        kind = _KINDS[tag]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        wide = tag == "i" and isinstance(value, int) and not -(1 << 31) <= value < 1 << 31
        if not isinstance(value, kind) or isinstance(value, bool) or value != value or wide:
            raise ProtocolError(Code.ARGUMENTS, f"argument {len(found) + 1} is {str(value)[:40]!r}, not of type {tag}")
        found.append(value)
    return found


def _blend(arguments: tuple[Any, ...]) -> tuple[int, dict[str, float]]:
    request = 0
    if len(arguments) % 2:
        request = _checked(arguments[-1:], "i")[0]
        arguments = arguments[:-1]
    if not 1 <= len(arguments) // 2 <= 16:
        raise ProtocolError(Code.ARGUMENTS, "give preset and weight, for one to sixteen presets")
    values = _checked(arguments, "sf" * (len(arguments) // 2))
    if any("/" in name or "\\" in name for name in values[::2]):
        raise ProtocolError(Code.PRESET, "a preset's name has no slash; /presets lists them")
    return request, dict(zip(values[::2], values[1::2], strict=True))


def _plain(text: str) -> str:
    """For an OSC string: ASCII, without a zero."""
    return text.encode("ascii", "replace").decode().replace("\0", "?")


assert REPLY_OVERHEAD >= 4 * 20  # address, tags, numbers and the blob's size
