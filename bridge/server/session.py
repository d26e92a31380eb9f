"""One session of the bridge: the messages of a TCP connection, or of an address that sends datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from ...engine.constants import MODEL_RATE
from ...engine.errors import StemProverError
from ..osc import (
    FROM_CLIENT,
    MAX_BLEND,
    MAX_DATAGRAM,
    REPLY_OVERHEAD,
    ROOT,
    VERSION,
    Code,
    Message,
    ProtocolError,
    StreamFormat,
    client_spec,
    converted,
    decode,
    encode_reply,
    from_blob,
    largest_block,
    to_blob,
    to_client,
)
from .jobs import Job
from .parameters import PARAMETERS
from .registry import Registry, log
from .selection import SupersededError
from .stream import Answer, Stream

_LOG = logging.getLogger("stemprover.bridge")
MOST_TASKS = 64  # requests of one session that may be running
MOST_STREAMS = 16
_BLOCK = FROM_CLIENT["/block"]


class Session:
    """`handle` takes a message; `send` is called with each answer. datagrams: it speaks UDP, so blocks must fit."""

    def __init__(self, registry: Registry, send: Callable[[bytes], None], *, datagrams: bool) -> None:
        self.registry, self._send, self.datagrams = registry, send, datagrams
        self.number = registry.new_session()
        self.greeted = self.known = False  # has said hello; has sent anything valid
        self.streams: dict[int, Stream] = {}
        self.faults = 0  # invalid messages
        self.last_heard = time.monotonic()
        self._int32_positions = False  # as the client sends them: some do not know int64
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = self._opening = False

    def handle(self, data: bytes) -> None:
        """One message; an invalid one is answered with an error and does no harm."""
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
            _LOG.exception("event=internal session=%d", self.number)
            text = "the bridge failed at this message; its log says more"
            self.fail(_request_of(message), Code.INTERNAL, message.address, text)

    def send(self, path: str, *values: Any) -> None:
        """A message to the client."""
        if not self._closed:
            self._send(to_client(path, *values))

    def fail(self, request: int, code: Code, address: str, text: str, *, is_fault: bool = True) -> None:
        """An error to the client; is_fault: it counts against the connection."""
        self.faults += is_fault
        shown = "".join(letter if letter.isprintable() else "?" for letter in address[:120])
        self.send("/error", request, int(code), shown.encode("ascii", "replace").decode(), _ascii(text))

    def close(self) -> None:
        """The client is gone: its streams end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for stream in list(self.streams.values()):
            self.registry.close(stream)
        self.streams.clear()
        if self.registry.jobs is not None:
            self.registry.jobs.listeners.discard(self.report_job)

    @property
    def crowded(self) -> bool:
        """Whether no more should be read for now."""
        return any(stream.crowded for stream in self.streams.values())

    # messages

    def _dispatch(self, message: Message, arrived: float) -> None:
        address, arguments = message.address, message.arguments
        path = address.removeprefix(ROOT)
        spec = client_spec(path)
        if spec is None or path == address:
            raise ProtocolError(Code.UNKNOWN_ADDRESS, f"there is no {address[:80]!r}; see docs/osc.md")
        if spec is _BLOCK:
            self._int32_positions = message.tags[2:3] not in "hd"
            self._block(*(arguments if message.tags == spec.tags else spec.check(arguments)))
            return
        if path == "/hello":
            self._hello(message)
            return
        if not self.greeted and self.registry.config.token:
            raise ProtocolError(Code.TOKEN, "send /hello with the token first")
        self.known = True
        if path == "/ping":
            self._ping(arguments, arrived)
        elif path.startswith("/stream/"):
            self._set_parameter(path, address, arguments)
        else:
            request, *others = spec.check(arguments)
            self._check_tasks()
            self._start(request, address, getattr(self, "_on" + path.replace("/", "_"))(request, *others))

    def _hello(self, message: Message) -> None:
        request = _request_of(message)
        with self._answering(request, ROOT + "/hello"):
            values = FROM_CLIENT["/hello"].check(message.arguments)
            _, token, name, role, rate, max_block, channels, mix_channels = values[:8]
            if (version := values[8] if len(values) > 8 else VERSION) != VERSION:
                raise ProtocolError(
                    Code.VERSION, f"version {version} of the protocol is not supported; this bridge speaks {VERSION}"
                )
            self.registry.check_token(token)
            if role not in ("stream", "control"):
                raise ProtocolError(Code.ARGUMENTS, f"role {role[:40]!r} is unknown; use stream or control")
            self.greeted = self.known = True
            if role == "control":
                self.send("/ready", request, self.number, 0, MODEL_RATE, 0, 0, 0, 0, 0, str(VERSION))
                return
            form = StreamFormat(rate, max_block, channels, mix_channels)
            if self.datagrams and max_block > (most := largest_block(channels, mix_channels)):
                raise ProtocolError(
                    Code.TOO_LARGE,
                    f"blocks of {max_block} frames do not fit into a datagram ({MAX_DATAGRAM} bytes); "
                    f"split them into {most} frames or less, or use TCP",
                )
            if self._opening:
                raise ProtocolError(Code.QUEUE, "another /hello is being answered; wait for its /ready")
            self._check_room()
            self._check_tasks()
            self._start(request, ROOT + "/hello", self._open(request, name[:80], form))
            self._opening = True

    def _check_room(self) -> None:
        self.streams = {number: stream for number, stream in self.streams.items() if not stream.closed}
        if len(self.streams) >= (MOST_STREAMS if self.datagrams else 1):
            raise ProtocolError(Code.BUSY, "one stream per connection; open another connection")

    async def _open(self, request: int, name: str, form: StreamFormat) -> None:
        try:
            await self.registry.measure(form.sample_rate)
        finally:
            self._opening = False
        stream = self.registry.open(name, form, lambda answer: self._answer(stream, answer), datagrams=self.datagrams)
        number = stream.number  # the stream must not hold itself
        stream.mix_changed = lambda text, state: self.send("/mix", number, state, text)
        self.streams[stream.number] = stream
        parts = stream.latency
        self.send(
            "/ready", request, self.number, stream.number, MODEL_RATE, parts.total, parts.window, parts.lookahead,
            parts.chunk, parts.adaptation, str(VERSION),
        )  # fmt: skip

    def _block(self, number: int, sequence: int, position: int, frames: int, flags: int, blob: bytes) -> None:
        stream = self._own(number)
        if not 1 <= frames <= stream.format.max_block:
            raise ProtocolError(
                Code.TOO_LARGE, f"a block of {frames} frames; this stream takes 1 to {stream.format.max_block}"
            )
        if not sequence >= 0 or not -(1 << 53) < position < 1 << 53:
            raise ProtocolError(
                Code.ARGUMENTS, f"block {sequence} at {position}: sequences count up from 0, positions from any number"
            )
        if stream.crowded and self.datagrams:
            raise ProtocolError(Code.QUEUE, f"{stream.queued} blocks are waiting; wait for their answers")
        audio = from_blob(blob, stream.format.channels + stream.format.mix_channels, frames)
        stream.push(sequence, position, flags, audio)

    def _answer(self, stream: Stream, answer: Answer) -> None:
        if self._closed:
            return
        values = (
            stream.number, answer.sequence, answer.position, answer.audio.shape[1], answer.flags, int(answer.status),
            min(int(answer.seconds * 1e6), (1 << 31) - 1), stream.latency.total, to_blob(answer.audio),
        )  # fmt: skip
        int32 = self._fits_int32(answer.position)
        self._send(to_client("/block", *values, int32_positions=True) if int32 else encode_reply(*values))

    def _ping(self, arguments: tuple[Any, ...], arrived: float) -> None:
        request, client_time = FROM_CLIENT["/ping"].check(arguments)
        mine = [stream.counters for stream in self.streams.values()]
        queued = sum(stream.queued for stream in self.streams.values())
        load = sum(s.counters.load for s in self.registry.streams.values()) / self.registry.cores
        self.send(
            "/pong", request, client_time, arrived, time.monotonic(), sum(c.late for c in mine),
            sum(c.lost for c in mine), queued, float(load),
        )  # fmt: skip

    def _set_parameter(self, path: str, address: str, arguments: tuple[Any, ...]) -> None:
        _, _, number, name = path.split("/")
        if not number.isdecimal() or len(number) > 9:
            raise ProtocolError(Code.UNKNOWN_ADDRESS, f"there is no {address[:80]!r}; see docs/osc.md")
        stream = self.registry.stream(int(number))
        spec = FROM_CLIENT[f"/stream/<n>/{name}"]
        values = spec.check(arguments)
        request = 0 if spec.request_place(len(values)) is None else values.pop()
        self._check_tasks()
        if name == "blend":
            weights = _blend(values)
            self._start(request, address, self._set(request, address, stream, stream.selection.blend(weights)))
            return
        (value,) = values
        with self._answering(request, address):
            held = PARAMETERS[name].set(stream, value)
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
        if not self._closed:
            int32 = self._fits_int32(position)
            self._send(to_client("/ack", request, address, number, position, int32_positions=int32))

    def _fits_int32(self, position: int) -> bool:
        return self._int32_positions and abs(position) < 1 << 31

    # Requests, by path. Each begins before the next message is looked at; the coroutine waits for its end.

    def _on_flush(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        return self._when_done(stream.flush(), request, "/flush", stream)

    def _on_reset(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        return self._when_done(stream.reset(), request, "/reset", stream)

    def _on_close(self, request: int, number: int) -> Coroutine[Any, Any, None]:
        stream = self._own(number)
        position = stream.position
        del self.streams[number]
        self.registry.close(stream)

        async def ended() -> None:
            self._acknowledge(request, ROOT + "/close", number, position)

        return ended()

    async def _when_done(self, work: Coroutine[Any, Any, None], request: int, path: str, stream: Stream) -> None:
        await work
        self._acknowledge(request, ROOT + path, stream.number, stream.position)

    async def _on_presets(self, request: int) -> None:
        titles = await self.registry.titles()
        self.send("/presets", request, *(_ascii(text) for pair in titles for text in pair))

    async def _on_status(self, request: int) -> None:
        self.send("/status", request, self.registry.status_json())

    async def _on_job_render(self, request: int, source: str, mix: str, output: str, preset: str, quality: str) -> None:
        jobs = self._jobs()
        job = await jobs.add(source, mix, output, preset, quality)
        jobs.listeners.add(self.report_job)
        self.report_job(job, request)

    async def _on_job_cancel(self, request: int, number: str) -> None:
        self.report_job(await self._jobs().cancel(number), request)

    async def _on_job_list(self, request: int) -> None:
        jobs = self._jobs()
        for job in jobs.list():
            self.report_job(job, request)
        jobs.listeners.add(self.report_job)
        self._acknowledge(request, ROOT + "/job/list", 0, 0)

    def report_job(self, job: Job, request: int = 0) -> None:
        """A job's state to the client."""
        left = -1.0 if job.seconds_left is None else job.seconds_left
        self.send(
            "/job", request, job.number, job.state, float(job.fraction), _ascii(job.stage), left, _ascii(job.text)
        )

    def _jobs(self) -> Any:
        if self.registry.jobs is None:
            raise ProtocolError(Code.JOB, "this bridge does not render files; start it with --root FOLDER")
        return self.registry.jobs

    def _own(self, number: int) -> Stream:
        stream = self.streams.get(number)
        if stream is None or stream.closed:
            raise ProtocolError(Code.NO_STREAM, f"stream {number} is not one of this session's")
        return stream

    def _check_tasks(self) -> None:
        """Before anything of a request begins. Raises ProtocolError."""
        if len(self._tasks) >= MOST_TASKS:
            raise ProtocolError(Code.QUEUE, f"{len(self._tasks)} requests are running; wait for their answers")

    def _start(self, request: int, address: str, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with self._answering(request, address):
                await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def _answering(self, request: int, address: str) -> Iterator[None]:
        """Answers exceptions raised inside with an error message that has the request's number."""
        try:
            yield
        except ProtocolError as error:
            superseded = isinstance(error, SupersededError)  # fast faders are not a fault
            self.fail(request, error.code, address, str(error), is_fault=not superseded)
        except StemProverError as error:
            code = Code.PRESET if address.endswith(("/preset", "/blend")) else Code.ARGUMENTS
            self.fail(request, code, address, str(error))
        except Exception as error:
            _LOG.error("event=internal address=%s", address, exc_info=error)
            self.fail(request, Code.INTERNAL, address, "the bridge failed at this request; its log says more")


def _request_of(message: Message) -> int:
    """The number of the request that a message carries, or a block's sequence; 0 if there is none."""
    path, arguments = message.address.removeprefix(ROOT), message.arguments
    spec = client_spec(path)
    if spec is None:
        place: int | None = len(arguments) - 1 if path.startswith("/stream/") else 0
    else:
        place = 1 if spec is _BLOCK else spec.request_place(len(arguments))
    value = arguments[place] if place is not None and 0 <= place < len(arguments) else 0
    return converted(value, "i") or 0


def _blend(values: list[Any]) -> dict[str, float]:
    if len(values) // 2 > MAX_BLEND:
        raise ProtocolError(Code.ARGUMENTS, f"{len(values) // 2} presets; a blend takes 1 to {MAX_BLEND}")
    if any("/" in name or "\\" in name for name in values[::2]):
        raise ProtocolError(Code.PRESET, "a preset's name has no slash; /presets lists them")
    return dict(zip(values[::2], values[1::2], strict=True))


def _ascii(text: str) -> str:
    """For an OSC string: ASCII, without zeros."""
    return text.encode("ascii", "replace").decode().replace("\0", "?")


assert REPLY_OVERHEAD >= 4 * 20  # address, tags, numbers and the blob's size
