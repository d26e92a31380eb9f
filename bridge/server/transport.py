"""The bridge's sockets: OSC over TCP and UDP. Everything else that a bridge is, is in hub.py and peer.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections import OrderedDict, deque
from typing import Any, cast

from ...engine.errors import StemProverError
from ..osc import Code, FrameReader, ProtocolError, encode, framed
from .jobs import Jobs, Store
from .registry import BridgeConfig, Hub, log
from .session import Peer

MOST_CONNECTIONS = 256
MOST_SENDERS = 64  # addresses that datagrams come from
HELLO_S = 5.0  # until the first message has to be there
FRAME_S = 10.0  # that a message may take, from its first byte to its last
SENDER_S = 60.0  # after which an address that has fallen silent is forgotten
WRITE_S = 10.0  # that a client may leave what it is sent
TURN_MESSAGES, TURN_S = 64, 0.002  # of one connection, before the others have their turn
MOST_FAULTS = 100  # messages of no use, after which a connection is closed
MOST_UNSENT = 1 << 22  # bytes of datagrams that may wait to be sent
ERRORS_A_SECOND = 200  # to addresses that datagrams come from


class _Connection(asyncio.Protocol):
    """A TCP connection."""

    transport: asyncio.Transport

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.reader = FrameReader()
        self.frames: deque[bytes] = deque()
        self.peer: Peer | None = None
        self.begun: float | None = None  # when a message began that is not whole yet
        self.stuck: float | None = None  # since when the client reads nothing
        self.paused = self.pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.opened = time.monotonic()
        if len(self.bridge.connections) >= MOST_CONNECTIONS:
            text = f"{MOST_CONNECTIONS} connections are open; close one"
            self.transport.write(framed(encode("/error", "iiss", 0, int(Code.BUSY), "", text)))
            transport.close()
            return
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.bridge.connections.add(self)
        where = transport.get_extra_info("peername")
        self.peer = Peer(self.bridge.hub, f"tcp {where[0]}:{where[1]}", self.send, datagrams=False)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(framed(data))

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            return
        try:
            self.frames.extend(self.reader.feed(data))
        except ProtocolError as error:
            self._pump()
            self.peer.fail(0, error.code, "", str(error))
            self.transport.close()
            return
        now = time.monotonic()
        self.begun = None if not self.reader.waiting else self.begun if self.begun and not self.frames else now
        if not self.pumping:
            self._pump()

    def _pump(self) -> None:
        """Hands on what came, a little at a time."""
        self.pumping = False
        peer, started, count = self.peer, time.monotonic(), 0
        if peer is None:
            return
        while self.frames and not self.transport.is_closing():
            if peer.crowded or self.stuck is not None:
                self.pumping = True
                self._pause(True)
                self.bridge.loop.call_later(0.01, self._pump)
                return
            if count == TURN_MESSAGES or time.monotonic() - started > TURN_S:
                self.pumping = True
                self._pause(True)
                self.bridge.loop.call_soon(self._pump)
                return
            peer.handle(self.frames.popleft())
            count += 1
            if peer.faults > MOST_FAULTS:
                log("thrown-out", session=peer.session, faults=peer.faults)
                self.transport.close()
                return
        self._pause(False)

    def _pause(self, wanted: bool) -> None:
        if wanted == self.paused or self.transport.is_closing():
            return
        self.paused = wanted
        if self.begun is not None:
            self.begun = time.monotonic()  # what was not read meanwhile is not the client's fault
        (self.transport.pause_reading if wanted else self.transport.resume_reading)()

    def pause_writing(self) -> None:
        self.stuck = time.monotonic()
        self._pause(True)

    def resume_writing(self) -> None:
        self.stuck = None
        if not self.pumping:
            self._pump()

    def check(self, now: float) -> None:
        """Closes what only takes up room."""
        known = self.peer is not None and self.peer.known
        slow = self.begun is not None and now - self.begun > FRAME_S and not self.paused
        mute = not known and now - self.opened > HELLO_S
        if slow or mute:
            self.transport.close()
        if self.stuck is not None and now - self.stuck > WRITE_S:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.bridge.connections.discard(self)
        self.frames.clear()
        if self.peer is not None:
            self.peer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """The UDP socket: a peer for each address."""

    transport: Any  # asyncio's own selector transport: its base class does not name the size of its buffer

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.peers: OrderedDict[tuple[Any, ...], Peer] = OrderedDict()
        self._allowance, self._counted = float(ERRORS_A_SECOND), time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        sock = transport.get_extra_info("socket")
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 21)

    def datagram_received(self, data: bytes, where: tuple[Any, ...]) -> None:
        peer = self.peers.get(where)
        if peer is None:
            name = f"udp {where[0]}:{where[1]}"
            peer = Peer(self.bridge.hub, name, lambda out: self._send(out, where), datagrams=True)
            if len(self.peers) >= MOST_SENDERS:
                idle = next((key for key, other in self.peers.items() if not other.streams), None)
                if idle is None:
                    return
                self.peers.pop(idle).close()
            self.peers[where] = peer
        peer.handle(data)

    def _send(self, data: bytes, where: tuple[Any, ...]) -> None:
        if data.startswith(b"/stemprover/error"):
            now = time.monotonic()
            self._allowance = min(ERRORS_A_SECOND, self._allowance + (now - self._counted) * ERRORS_A_SECOND)
            self._counted = now
            if self._allowance < 1.0:
                return  # whoever sends nonsense need not be told each time
            self._allowance -= 1.0
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() < MOST_UNSENT:
            self.transport.sendto(data, where)

    def check(self, now: float) -> None:
        """Forgets who has fallen silent, and streams that nobody uses."""
        self.bridge.hub.drop_unused(HELLO_S)
        for where, peer in list(self.peers.items()):
            if now - peer.last_heard > SENDER_S:
                self.peers.pop(where).close()

    def error_received(self, error: Exception) -> None:
        """A client that is gone is told by its silence."""


class Bridge:
    """`async with Bridge(config) as bridge:` serves until it is left; `port` and `http_port` are the ones in use."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self.port = self.http_port = 0
        self.connections: set[_Connection] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._page: Any = None

    async def __aenter__(self) -> Bridge:
        self.loop = asyncio.get_running_loop()
        config = self.config
        store = Store(config.jobs_file) if config.jobs_file is not None and config.roots else None
        self.hub = Hub(config)
        try:
            await self._listen(store)
        except OSError as error:
            await self.hub.shut()
            raise StemProverError(
                f"{config.host}, port {config.port} or {config.http_port}: {error.strerror or error}; "
                "is a bridge running already? give other ports with --port and --http-port"
            ) from error
        self._ticker = self.loop.create_task(self._tick())
        return self

    async def _listen(self, store: Store | None) -> None:
        config = self.config
        self._server = await self.loop.create_server(lambda: _Connection(self), config.host, config.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        transport, self._datagrams = await self.loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(config.host, self.port)
        )
        self._udp = transport
        from .monitor import Monitor

        self._page = Monitor(self.hub, self)
        self.http_port = await self._page.start(config.host, config.http_port)
        if store is not None:
            self.hub.jobs = Jobs(store, config.roots, config.device)
            self.hub.jobs.start()
        log("start", host=config.host, port=self.port, http_port=self.http_port, processors=self.hub.processors)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._ticker is not None:
            self._ticker.cancel()
        if self.hub.jobs is not None:
            await self.hub.jobs.stop()
        await self.hub.shut()
        goodbye = ("/goodbye", "s", "the bridge stops")
        peers = [c.peer for c in self.connections if c.peer is not None] + list(self._datagrams.peers.values())
        for peer in peers:
            peer.send(*goodbye)
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
    """Let threads take turns more often: the event loop must not wait five milliseconds for a worker's Python."""
    sys.setswitchinterval(0.0001)
