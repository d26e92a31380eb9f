"""The bridge's sockets: OSC over TCP and UDP. registry.py and session.py hold everything else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections import OrderedDict, deque
from typing import Any, cast

from ...engine.errors import StemProverError
from ..osc import Code, FrameReader, ProtocolError, framed, to_client
from .jobs import Jobs, Store
from .registry import BridgeConfig, Registry, log
from .session import Session

MOST_CONNECTIONS = 256
MOST_SENDERS = 64  # addresses of datagrams
HELLO_S = 5.0  # until the first message must arrive
FRAME_S = 10.0  # from a message's first byte to its last
SENDER_S = 60.0  # after which a silent address is forgotten
WRITE_S = 10.0  # that a client may leave its answers unread
TURN_MESSAGES, TURN_S = 64, 0.002  # of one connection before it is the others' turn
MOST_FAULTS = 100  # invalid messages, after which a connection is closed
MOST_UNSENT = 1 << 22  # bytes of datagrams that may wait to be sent
ERRORS_A_SECOND = 200  # to addresses of datagrams


class _Connection(asyncio.Protocol):
    """A TCP connection."""

    transport: asyncio.Transport

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.reader = FrameReader()
        self.frames: deque[bytes] = deque()
        self.session: Session | None = None
        self.begun: float | None = None  # when an incomplete message began
        self.stuck: float | None = None  # since when the client has not read
        self.paused = self.pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened = time.monotonic()
        if len(self.bridge.connections) >= MOST_CONNECTIONS:
            text = f"{MOST_CONNECTIONS} connections are open; close one"
            self.transport.write(framed(to_client("/error", 0, int(Code.BUSY), "", text)))
            transport.close()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.bridge.connections.add(self)
        self.session = Session(self.bridge.registry, self.send, datagrams=False)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(framed(data))

    def data_received(self, data: bytes) -> None:
        if self.session is None:
            return
        try:
            self.frames.extend(self.reader.feed(data))
        except ProtocolError as error:
            self._pump()
            self.session.fail(0, error.code, "", str(error))
            self.transport.close()
            return
        now = time.monotonic()
        self.begun = None if not self.reader.waiting else self.begun if self.begun and not self.frames else now
        if not self.pumping:
            self._pump()

    def _pump(self) -> None:
        """Passes messages to the session, a few at a time."""
        self.pumping = False
        session, started, count = self.session, time.monotonic(), 0
        if session is None:
            return
        while self.frames and not self.transport.is_closing():
            if session.crowded or self.stuck is not None:
                self.pumping = True
                self._pause(True)
                self.bridge.loop.call_later(0.01, self._pump)
                return
            if count == TURN_MESSAGES or time.monotonic() - started > TURN_S:
                self.pumping = True
                self._pause(True)
                self.bridge.loop.call_soon(self._pump)
                return
            session.handle(self.frames.popleft())
            count += 1
            if session.faults > MOST_FAULTS:
                log("disconnected", session=session.number, faults=session.faults)
                self.transport.close()
                return
        self._pause(False)

    def _pause(self, wanted: bool) -> None:
        if wanted == self.paused or self.transport.is_closing():
            return
        self.paused = wanted
        if self.begun is not None:
            self.begun = time.monotonic()  # the client is not to blame for what is not read meanwhile
        (self.transport.pause_reading if wanted else self.transport.resume_reading)()

    def pause_writing(self) -> None:
        self.stuck = time.monotonic()
        self._pause(True)

    def resume_writing(self) -> None:
        self.stuck = None
        if not self.pumping:
            self._pump()

    def check(self, now: float) -> None:
        """Closes the connection if it only takes up room."""
        known = self.session is not None and self.session.known
        slow = self.begun is not None and now - self.begun > FRAME_S and not self.paused
        mute = not known and now - self.opened > HELLO_S
        if slow or mute:
            self.transport.close()
        if self.stuck is not None and now - self.stuck > WRITE_S:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.bridge.connections.discard(self)
        self.frames.clear()
        if self.session is not None:
            self.session.close()


class _Datagrams(asyncio.DatagramProtocol):
    """The UDP socket: a session for each address."""

    transport: Any  # asyncio's selector transport: its base class does not declare its buffer's size

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.sessions: OrderedDict[tuple[Any, ...], Session] = OrderedDict()
        self._allowance, self._counted = float(ERRORS_A_SECOND), time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 21)

    def datagram_received(self, data: bytes, where: tuple[Any, ...]) -> None:
        session = self.sessions.get(where)
        if session is None:
            session = Session(self.bridge.registry, lambda out: self._send(out, where), datagrams=True)
            if len(self.sessions) >= MOST_SENDERS:
                idle = next((key for key, other in self.sessions.items() if not other.streams), None)
                if idle is None:
                    return
                self.sessions.pop(idle).close()
            self.sessions[where] = session
        session.handle(data)

    def _send(self, data: bytes, where: tuple[Any, ...]) -> None:
        if data.startswith(b"/stemprover/error"):
            now = time.monotonic()
            self._allowance = min(ERRORS_A_SECOND, self._allowance + (now - self._counted) * ERRORS_A_SECOND)
            self._counted = now
            if self._allowance < 1.0:
                return  # nonsense need not be answered each time
            self._allowance -= 1.0
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() < MOST_UNSENT:
            self.transport.sendto(data, where)

    def check(self, now: float) -> None:
        """Forgets silent addresses, and closes unused streams."""
        self.bridge.registry.drop_unused(HELLO_S)
        for where, session in list(self.sessions.items()):
            if now - session.last_heard > SENDER_S:
                self.sessions.pop(where).close()

    def error_received(self, error: Exception) -> None:
        """A client that is gone is recognised by its silence."""


class Bridge:
    """`async with Bridge(config) as bridge:` serves until the block ends; `port` and `http_port` are the ones in
    use."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self.port = self.http_port = 0
        self.connections: set[_Connection] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._udp: asyncio.BaseTransport | None = None
        self._page: Any = None

    async def __aenter__(self) -> Bridge:
        self.loop = asyncio.get_running_loop()
        config = self.config
        store = Store(config.jobs_file) if config.jobs_file is not None and config.roots else None
        self.registry = Registry(config)
        try:
            await self._listen(store)
        except BaseException as error:
            if self._page is not None:
                await self._page.stop()
            for listener in (self._server, self._udp):
                if listener is not None:
                    listener.close()
            await self.registry.shut()
            if not isinstance(error, OSError):
                raise
            raise StemProverError(
                f"{config.host}, port {config.port} or {config.http_port}: {error.strerror or error}; "
                "is a bridge running already? choose other ports with --port and --http-port"
            ) from error
        self._ticker = self.loop.create_task(self._tick())
        return self

    async def _listen(self, store: Store | None) -> None:
        config = self.config
        self._server = await self.loop.create_server(lambda: _Connection(self), config.host, config.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        self._udp, self._datagrams = await self.loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(config.host, self.port)
        )
        from .monitor import Monitor

        self._page = Monitor(self.registry, self.port)
        self.http_port = await self._page.start(config.http_port)
        if store is not None:
            self.registry.jobs = Jobs(store, config.roots, config.device)
            self.registry.jobs.start()
        log("start", host=config.host, port=self.port, http_port=self.http_port, processors=self.registry.cores)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._udp is not None
        self._server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        if self.registry.jobs is not None:
            await self.registry.jobs.stop()
        await self.registry.shut()
        goodbye = ("/goodbye", "the bridge stops")
        sessions = [c.session for c in self.connections if c.session is not None] + list(
            self._datagrams.sessions.values()
        )
        for session in sessions:
            session.send(*goodbye)
        await self._page.stop()
        for connection in list(self.connections):
            connection.transport.close()
        deadline = time.monotonic() + 1.0
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self._udp.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._server.wait_closed(), 1.0)
        log("stop")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check(now)
            self._datagrams.check(now)


def quicken_threads() -> None:
    """Let threads switch more often: the event loop must not wait five milliseconds for a worker's Python code."""
    sys.setswitchinterval(0.0001)
