"""A client's connection to a bridge: messages out, answers to the requests that they belong to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from ...engine.errors import StemProverError
from ..osc import ROOT, Code, FrameReader, ProtocolError, decode, encode, framed

ANSWER_S = 30.0


class BridgeError(StemProverError):
    """The bridge refused something; `code` says what kind."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = Code(code) if code in Code._value2member_map_ else Code.INTERNAL


class BridgeLostError(StemProverError):
    """The bridge cannot be reached, or has gone."""


class Link(asyncio.Protocol):
    """One connection, from `open` until it is lost.

    hear: called with each message's path and arguments, after the request that it answers has got them.
    refused: called with an error that belongs to no request, its address, and for a block its sequence.
    lost: called once, when the bridge has gone; every request that waits then raises BridgeLostError.
    """

    def __init__(
        self,
        hear: Callable[[str, tuple[Any, ...]], None],
        refused: Callable[[BridgeError, str, int], None],
        lost: Callable[[Link], None],
    ) -> None:
        self._hear, self._refused, self._lost = hear, refused, lost
        self._reader = FrameReader()
        self._requests = itertools.count(1)
        self._asked: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._transport: asyncio.Transport | None = None
        self.where = ""
        self.up = False
        self.room = asyncio.Event()  # whether more can be sent
        self.room.set()

    @classmethod
    async def open(cls, host: str, port: int, *calls: Any) -> Link:
        """A connection to host and port; `calls` as of the constructor. Raises BridgeLostError."""
        try:
            transport, link = await asyncio.get_running_loop().create_connection(lambda: cls(*calls), host, port)
        except OSError as error:
            raise BridgeLostError(
                f"no bridge at {host}:{port} ({error.strerror or error}); start one with: stemprover serve"
            ) from error
        link._transport, link.where, link.up = transport, f"{host}:{port}", True
        return link

    def write(self, address: str, tags: str, *values: Any) -> None:
        """A message to the bridge."""
        assert self._transport is not None
        self._transport.write(framed(encode(address, tags, *values)))

    async def ask(self, address: str, tags: str, *values: Any, last: bool = False) -> tuple[Any, ...]:
        """A request, whose number goes first (or last): the answer's arguments. Raises BridgeError, BridgeLostError."""
        if not self.up:
            raise BridgeLostError(f"no bridge at {self.where}")
        request = next(self._requests)
        future: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        self._asked[request] = future
        self.write(address, *((tags + "i", *values, request) if last else ("i" + tags, request, *values)))
        try:
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise BridgeLostError(f"the bridge did not answer {address} within {ANSWER_S:g} s") from None
        finally:
            self._asked.pop(request, None)

    def fail_all(self, error: Exception) -> None:
        """Have all requests that wait raise it."""
        for future in self._asked.values():
            fail(future, error)

    def close(self) -> None:
        """End it."""
        self.up = False
        if self._transport is not None:
            self._transport.close()

    # asyncio's

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
        self.fail_all(BridgeLostError(f"the bridge at {self.where} has gone"))
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
            elif request in self._asked:
                fail(self._asked[request], error)
        elif path != "/block" and arguments and (future := self._asked.get(arguments[0])) and not future.done():
            future.set_result(arguments)
        self._hear(path, arguments)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Have whoever waits for it get the error, if nobody has got anything yet."""
    if not future.done():
        future.set_exception(error)
