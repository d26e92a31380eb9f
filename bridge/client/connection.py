"""A client's connection to a bridge: sends messages, and matches answers to requests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from ...engine.errors import StemProverError
from ..osc import ROOT, Code, FrameReader, ProtocolError, client_spec, decode, encode, framed, to_bridge

ANSWER_S = 30.0


class BridgeError(StemProverError):
    """The bridge refused something; `code` says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = Code(code) if code in Code._value2member_map_ else Code.INTERNAL


class BridgeLostError(StemProverError):
    """The bridge cannot be reached, or has stopped."""


class Connection(asyncio.Protocol):
    """One connection, from `open` until it is lost.

    received: called with each message's path and arguments, after the request that it answers has got them.
    refused: called with an error that belongs to no request, its address, and for a block its sequence.
    lost: called once, when the bridge has gone; every waiting request then raises BridgeLostError.
    """

    def __init__(
        self,
        received: Callable[[str, tuple[Any, ...]], None],
        refused: Callable[[BridgeError, str, int], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self._received, self._refused, self._lost = received, refused, lost
        self._reader = FrameReader()
        self._requests = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._transport: asyncio.Transport | None = None
        self.peer = ""
        self.up = False
        self.room = asyncio.Event()  # set while more can be sent
        self.room.set()

    @classmethod
    async def open(cls, host: str, port: int, *calls: Any) -> Connection:
        """Connect to host and port; `calls` as for the constructor. Raises BridgeLostError."""
        try:
            transport, connection = await asyncio.get_running_loop().create_connection(lambda: cls(*calls), host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            details = "" if "Connect call failed" in reason else f" ({reason})"  # asyncio only repeats the address
            raise BridgeLostError(f"no bridge at {host}:{port}{details}; start one with: stemprover serve") from error
        connection._transport, connection.peer, connection.up = transport, f"{host}:{port}", True
        return connection

    def send(self, path: str, *values: Any) -> None:
        """A message to the bridge."""
        self._write(to_bridge(path, *values))

    async def ask(self, path: str, *values: Any) -> tuple[Any, ...]:
        """A request, without its number: the answer's arguments. Raises BridgeError, BridgeLostError."""
        spec = client_spec(path)
        assert spec is not None, path
        first = spec.request_comes_first
        return await self._ask(path, lambda n: to_bridge(path, *((n, *values) if first else (*values, n))))

    async def ask_raw(self, address: str, tags: str, *values: Any) -> tuple[Any, ...]:
        """As `ask`, for any address: the request's number goes first."""
        return await self._ask(address, lambda number: encode(address, "i" + tags, number, *values))

    def _write(self, message: bytes) -> None:
        assert self._transport is not None
        self._transport.write(framed(message))

    async def _ask(self, address: str, message: Callable[[int], bytes]) -> tuple[Any, ...]:
        if not self.up:
            raise BridgeLostError(f"no bridge at {self.peer}")
        request = next(self._requests)
        future: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        data = message(request)
        self._waiting[request] = future
        self._write(data)
        try:
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise BridgeLostError(f"the bridge did not answer {address} within {ANSWER_S:g} s") from None
        finally:
            self._waiting.pop(request, None)

    def fail_all(self, error: Exception) -> None:
        """Have all waiting requests raise it."""
        for future in self._waiting.values():
            fail(future, error)

    def close(self) -> None:
        """Close the connection."""
        self.up = False
        if self._transport is not None:
            self._transport.close()

    # called by asyncio

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            self._message(message)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.up = False
        self.room.set()
        self.fail_all(BridgeLostError(f"the bridge at {self.peer} has stopped"))
        self._lost(self)

    def _message(self, data: bytes) -> None:
        try:
            message = decode(data)
        except ProtocolError:
            return
        path, arguments = message.address.removeprefix(ROOT), message.arguments
        if path == "/error":
            request, code, address, text = arguments
            error = BridgeError(code, text)
            if address.endswith("/block") or not request:
                self._refused(error, address, request)
            elif request in self._waiting:
                fail(self._waiting[request], error)
        elif path != "/block" and arguments and (future := self._waiting.get(arguments[0])) and not future.done():
            future.set_result(arguments)
        self._received(path, arguments)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fails a future that is not done yet."""
    if not future.done():
        future.set_exception(error)
