"""Clients cannot slow, stall or stop a bridge, or use it without the token."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridges import Wire, running
from fakes import FakeModel, FakeModelRepairer
from stemprover.benchmarks.osc_fuzz import fuzz
from stemprover.bridge.client.client import AsyncClient, BridgeError, BridgeLostError, Client
from stemprover.bridge.osc import Code, encode, framed, to_blob
from stemprover.bridge.server import transport as server
from stemprover.bridge.server.registry import BridgeConfig
from stemprover.bridge.server.serve import CalmFilter, OneLineFormatter, read_token
from stemprover.bridge.server.transport import Bridge
from stemprover.engine.errors import OptionError, StemProverError

RATE = 44100
BLOCK = to_blob(np.zeros((2, 512), np.float32))


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    with running(most_streams=16) as bridge:  # however busy this machine is
        yield bridge


def wait_until_empty(bridge: Bridge) -> None:
    """Abandoned streams of earlier tests count until the bridge closes them."""
    deadline = time.monotonic() + 10.0
    while bridge.call(lambda: len(bridge.registry.streams)) and time.monotonic() < deadline:
        time.sleep(0.05)


@contextlib.contextmanager
def honest_stream(bridge: Bridge, seconds: float = 0.0) -> Iterator[dict[str, Any]]:
    """A client that plays in real time meanwhile. Yields its counts, complete afterwards."""
    seen: dict[str, Any] = {"blocks": 0, "late": 0, "longest_s": 0.0}
    ended = threading.Event()

    def play() -> None:
        with Wire(bridge.port) as wire:
            ready = wire.hello()
            assert ready.address == "/ready", ready
            stream = ready.arguments[2]
            begun = time.monotonic()
            while not ended.is_set():
                asked, number = time.monotonic(), seen["blocks"]
                reply = wire.ask("/block", "iihiib", stream, number, number * 512, 512, 0, BLOCK)
                assert reply.address == "/block", reply
                seen["longest_s"] = max(seen["longest_s"], time.monotonic() - asked)
                seen["blocks"] += 1
                seen["late"] += reply.arguments[5] == 1
                time.sleep(max(0.0, begun + seen["blocks"] * 512 / RATE - time.monotonic()))

    wait_until_empty(bridge)
    player = threading.Thread(target=play)
    player.start()
    try:
        yield seen
        time.sleep(seconds)
    finally:
        ended.set()
        player.join(10)
    assert seen["blocks"] > 0
    assert not player.is_alive()


def test_mutated_messages_do_not_affect_other_clients(bridge: Bridge) -> None:
    with honest_stream(bridge) as seen:
        assert fuzz(bridge.port, 3000, seed=1) >= 3000
    assert seen["longest_s"] < 1.0
    wait_until_empty(bridge)
    with Client(RATE, 2, port=bridge.port) as client:
        assert client.process(np.zeros((2, 64), np.float32)).shape == (2, 64)


def test_a_flood_of_small_messages_does_not_block_other_clients(bridge: Bridge) -> None:
    message = framed(encode("/ping", "id", 1, 0.0))
    with honest_stream(bridge, 0.5) as seen, Wire(bridge.port) as flood:
        flood.hello()
        ended = time.monotonic() + 1.0
        flood.socket.setblocking(False)
        while time.monotonic() < ended:
            with contextlib.suppress(BlockingIOError):
                flood.socket.send(message * 500)
            with contextlib.suppress(BlockingIOError):
                flood.socket.recv(1 << 18)
    assert seen["blocks"] > 60
    assert seen["longest_s"] < 0.5


def test_a_client_that_reads_nothing_is_disconnected(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_S", 0.5)
    with Wire(bridge.port) as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        session = deaf.hello().arguments[1]
        # The system would buffer megabytes of answers, which take a busy machine a minute to write.
        for connection in bridge.call(lambda: list(bridge.connections)):
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data, sent, closed, stuck = framed(encode("/ping", "id", 1, 0.0)) * 20000, 0, False, 0
        deaf.socket.settimeout(0.2)
        ended = time.monotonic() + 60.0
        while time.monotonic() < ended and not closed:
            with contextlib.suppress(TimeoutError):
                try:
                    sent += deaf.socket.send(data[sent % len(data) :])
                except OSError as error:
                    closed = not isinstance(error, TimeoutError)
            stuck += bridge.call(lambda: sum(one.stuck is not None for one in bridge.connections))
        assert closed, f"{sent} bytes sent, seen stuck {stuck} times"
        assert stuck, "it must be disconnected because it read nothing"
        assert not bridge.call(lambda: [one for one in bridge.connections if one.session.number == session])


def test_slow_and_silent_connections_are_closed(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_S", 0.3)
    monkeypatch.setattr(server, "FRAME_S", 0.3)
    with Wire(bridge.port) as silent, Wire(bridge.port) as slow:
        slow.hello()
        slow.socket.sendall(struct.pack(">i", 1000) + b"/st")
        for wire in (silent, slow):
            assert wire.socket.recv(100) == b""


def test_messages_sent_together_take_effect_in_their_order(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        stream = wire.hello().arguments[2]
        block = ("/block", "iihiib", stream)
        wire.ask(*block, 5, 7000, 512, 0, BLOCK)
        sent = [(*block, 6, 7512, 512, 0, BLOCK), ("/reset", "ii", 9, stream), (*block, 0, 0, 512, 0, BLOCK)]
        wire.socket.sendall(b"".join(framed(encode(*message)) for message in sent))
        got = [wire.receive() for _ in range(3)]
        assert sorted(message.address for message in got) == ["/ack", "/block", "/block"]
        assert [message.arguments[1] for message in got if message.address == "/block"] == [6, 0]
        sent = [
            (f"/stream/{stream}/preset", "si", "bleed", 10), (f"/stream/{stream}/quality", "si", "best", 11),
            ("/flush", "ii", 12, stream), ("/close", "ii", 13, stream),
        ]  # fmt: skip
        wire.socket.sendall(b"".join(framed(encode(*message)) for message in sent))
        answered = set()
        while len(answered) < 4:
            message = wire.receive()
            if message.address != "/block":
                answered.add(message.arguments[0])
        assert answered == {10, 11, 12, 13}, "requests that a close cuts short are answered too"


def test_quality_applies_to_the_preset_chosen_last(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        stream = wire.hello().arguments[2]
        sent = [(f"/stream/{stream}/preset", "si", "bleed", 10), (f"/stream/{stream}/quality", "si", "draft", 11)]
        wire.socket.sendall(b"".join(framed(encode(*message)) for message in sent))
        while wire.receive().arguments[0] != 11:
            pass
        now = bridge.call(lambda: bridge.registry.streams[stream].selection)
        assert (now.name, now.quality) == ("bleed", "draft")


def test_numbers_too_large_for_their_type_are_refused(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        wire.send("/hello", "hsssiiii", 2**40, "", "wide", "stream", RATE, 512, 2, 0)
        assert wire.receive().arguments[1] == Code.ARGUMENTS
        assert wire.hello().address == "/ready", "the refused hello must not have opened a stream"


def test_after_a_model_fails_the_audio_stays_dry(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = np.random.default_rng(0).standard_normal((2, 40 * 512)).astype(np.float32)
    with Client(RATE, 2, port=bridge.port, max_block=512) as client:
        out = [client.process(audio[:, i * 512 : i * 512 + 512], offline=True) for i in range(20)]

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(FakeModel, "process_channels", fail)
        out += [client.process(audio[:, i * 512 : i * 512 + 512], offline=True) for i in range(20, 40)]
        number = client._client.stream
        assert "RuntimeError" in bridge.call(lambda: bridge.registry.streams[number].trouble)
        out.append(client.flush())
        made = np.concatenate(out, axis=1)[:, client.latency_samples :]
        assert np.array_equal(made, audio), "dry, aligned, and every block answered"
        monkeypatch.undo()
        again = client.process(audio[:, :512], offline=True)
        assert again.shape == (2, 512)
        assert not bridge.call(lambda: bridge.registry.streams[number].trouble)


def test_a_client_reconnects_without_a_setting_that_no_longer_exists() -> None:
    with running() as first:
        port = first.port
        client = Client(RATE, 2, port=port)
        client.set_wet(0.5)
        client._client._settings["preset"] = ("mine",)
    with running(port=port) as second, client:
        deadline = time.monotonic() + 15.0
        while not client.connected and time.monotonic() < deadline:
            client.process(np.zeros((2, 512), np.float32))
            time.sleep(0.05)
        assert client.connected
        assert second.call(lambda: [stream.wet for stream in second.registry.streams.values()]) == [0.5]
        assert len(second.connections) == 1


def test_a_refused_block_does_not_affect_others(bridge: Bridge) -> None:
    with Client(RATE, 2, port=bridge.port, max_block=512) as client:
        with pytest.raises(OptionError, match="600 frames"):
            client.submit(np.zeros((2, 600), np.float32)).result(5)
        replies = [client.submit(np.zeros((2, 512), np.float32)) for _ in range(4)]
        assert [reply.result(5).position for reply in replies] == [0, 512, 1024, 1536]


def test_a_stream_stays_urgent_after_a_stall(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        stream, number = wire.hello().arguments[2], 0

        def play(count: int, pause_s: float) -> bool:
            nonlocal number
            for _ in range(count):
                wire.ask("/block", "iihiib", stream, number, number * 512, 512, 0, BLOCK)
                number += 1
                time.sleep(pause_s)
            return bridge.call(lambda: bridge.registry.streams[stream].urgent)

        assert play(5, 512 / RATE)
        time.sleep(0.5)
        assert play(40, 0.0), "it catches up after the pause"
        assert not play(150, 0.0), "this is faster than real time"


def test_an_unused_stream_over_udp_is_closed(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_S", 0.3)
    with Wire(bridge.port, udp=True) as idle, Wire(bridge.port, udp=True) as busy:
        unused, used = idle.hello().arguments[2], busy.hello().arguments[2]
        assert busy.ask("/block", "iihiib", used, 0, 0, 512, 0, BLOCK).address == "/block"
        deadline = time.monotonic() + 5.0
        while bridge.call(lambda: unused in bridge.registry.streams) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not bridge.call(lambda: unused in bridge.registry.streams)
        assert busy.ask("/block", "iihiib", used, 1, 512, 512, 0, BLOCK).address == "/block"


def test_an_unused_stream_over_udp_makes_room_for_another() -> None:
    with running(most_streams=2) as bridge, Wire(bridge.port, udp=True) as hoarder, Wire(bridge.port) as quiet:
        hoarded, kept = hoarder.hello().arguments[2], quiet.hello().arguments[2]
        with Wire(bridge.port) as late:
            assert late.hello().arguments[1] == Code.BUSY, "both have just been opened"
            time.sleep(0.3)
            assert late.hello().address == "/ready"
        reply = hoarder.ask("/block", "iihiib", hoarded, 0, 0, 512, 0, BLOCK)
        assert reply.arguments[1] == Code.NO_STREAM
        reply = quiet.ask("/block", "iihiib", kept, 0, 0, 512, 0, BLOCK)
        assert reply.address == "/block", "over TCP the bridge notices when a client goes away"


def test_a_stream_allocates_memory_only_with_its_first_sound(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    with Wire(bridge.port) as wire:
        stream = wire.hello().arguments[2]
        assert wire.ask(f"/stream/{stream}/preset", "si", "general", 5).address == "/ack", "the model is loaded"
        real = FakeModel.start
        monkeypatch.setattr(FakeModel, "start", lambda self, **kw: made.append(1) or real(self, **kw))
        with Wire(bridge.port) as other:
            number = other.hello().arguments[2]
            assert other.ask(f"/stream/{number}/preset", "si", "general", 5).address == "/ack"
            assert not made
        loud = to_blob(np.full((2, 512), 0.1, np.float32))
        for number in range(60):
            wire.ask("/block", "iihiib", stream, number, 512 * number, 512, 1, BLOCK if number < 30 else loud)
            assert not made or number > 30
        assert made


def test_a_closed_stream_is_freed_at_once(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        number = wire.hello().arguments[2]
        wire.ask("/block", "iihiib", number, 0, 0, 512, 0, BLOCK)
        alive = bridge.call(lambda: weakref.ref(bridge.registry.streams[number]))
        assert wire.ask("/close", "ii", 3, number).address == "/ack"
    deadline = time.monotonic() + 5.0
    while alive() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive() is None, "by reference counting, without the garbage collector"


def test_a_stream_that_waited_for_its_model_is_freed_too() -> None:
    with running(FakeModelRepairer({}, load_s=0.5)) as bridge, Wire(bridge.port) as wire:
        number = wire.hello().arguments[2]
        alive = bridge.call(lambda: weakref.ref(bridge.registry.streams[number]))
        assert wire.ask(f"/stream/{number}/preset", "si", "bleed", 5).address == "/ack"
        assert wire.ask("/close", "ii", 3, number).address == "/ack"
        deadline = time.monotonic() + 5.0
        while alive() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive() is None


def test_a_fast_fader_is_not_a_fault() -> None:
    with running(FakeModelRepairer({}, load_s=0.05)) as bridge, Wire(bridge.port) as wire:
        number, codes = wire.hello().arguments[2], []
        for round_ in range(3):  # as many requests as may run at once
            for request in range(50):
                weight = (50 * round_ + request + 1) / 200
                wire.send(f"/stream/{number}/blend", "sfi", "bleed", weight, request)
            answers = [wire.receive() for _ in range(50)]
            codes += [answer.arguments[1] for answer in answers if answer.address == "/error"]
        assert len(codes) > 100, "more errors than faults that a connection may have"
        assert set(codes) == {int(Code.PRESET)}
        assert wire.ask("/ping", "id", 1, 0.0).address == "/pong"


def test_no_name_of_a_client_forges_a_line_of_the_log_or_reaches_the_terminal() -> None:
    name = "me\r\n2026-01-01 INFO event=paid\x1b[2J\u202e"
    record = logging.LogRecord("bridge", logging.INFO, "", 0, "event=open name=%s", (name,), None)
    line = OneLineFormatter("%(levelname)s %(message)s").format(record)
    assert line == "INFO event=open name=me\\r\\n2026-01-01 INFO event=paid\\x1b[2J\\u202e"


def test_clients_cannot_fill_the_log() -> None:
    calm = CalmFilter(most=3)

    def line(second: float) -> logging.LogRecord:
        record = logging.LogRecord("bridge", logging.INFO, "", 0, "event=%s", ("open",), None)
        record.created = second
        return record

    assert [calm.filter(line(7.1)) for _ in range(10)] == [True] * 3 + [False] * 7
    after = line(8.2)
    assert calm.filter(after)
    assert after.getMessage() == "event=open lines-suppressed=7"
    later = line(9.0)
    assert calm.filter(later)
    assert later.getMessage() == "event=open"


def test_a_client_that_disappears_in_the_middle_of_a_message(bridge: Bridge) -> None:
    wire = Wire(bridge.port)
    stream = wire.hello().arguments[2]
    wire.socket.sendall(framed(encode("/block", "iihiib", stream, 0, 0, 512, 0, BLOCK))[:900])
    wire.reset()
    deadline = time.monotonic() + 5.0
    while bridge.call(lambda: stream in bridge.registry.streams) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not bridge.call(lambda: stream in bridge.registry.streams)


def test_five_hundred_connections_do_not_block_a_stream(bridge: Bridge) -> None:
    with honest_stream(bridge) as seen:
        crowd = []
        for _ in range(500):
            with contextlib.suppress(OSError):
                crowd.append(socket.create_connection(("127.0.0.1", bridge.port), timeout=5.0))
        time.sleep(0.2)
        for one in crowd:
            one.close()
    assert seen["longest_s"] < 0.5
    deadline = time.monotonic() + 5.0
    while bridge.call(lambda: len(bridge.connections)) and time.monotonic() < deadline:
        time.sleep(0.01)
    Client(RATE, 2, port=bridge.port).close()


def test_too_many_invalid_messages_end_the_connection(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire, pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(400):
            wire.ask("/nothing", "i", 1)


def test_streams_of_other_clients_are_out_of_reach(bridge: Bridge) -> None:
    with Wire(bridge.port) as mine, Wire(bridge.port) as other:
        stream = mine.hello().arguments[2]
        other.hello()
        for address, tags, values in (
            ("/block", "iihiib", (stream, 0, 0, 512, 0, BLOCK)),
            ("/close", "ii", (3, stream)),
            ("/flush", "ii", (3, stream)),
        ):
            error = other.ask(address, tags, *values)
            assert (error.address, error.arguments[1]) == ("/error", Code.NO_STREAM)


def test_nothing_works_without_the_token() -> None:
    with running(token="secret") as bridge:
        for udp in (False, True):
            with Wire(bridge.port, udp=udp) as wire:
                for ask in (
                    lambda wire=wire: wire.ask("/ping", "id", 1, 0.0),
                    lambda wire=wire: wire.ask("/stream/1/wet", "f", 0.0),
                    lambda wire=wire: wire.hello(token="secre"),
                    lambda wire=wire: wire.hello(token="s\u00e9cret"),
                ):
                    error = ask()
                    assert (error.address, error.arguments[1]) == ("/error", Code.TOKEN)
                assert wire.hello(token="secret").address == "/ready"
                assert wire.ask("/ping", "id", 1, 0.0).address == "/pong"
        with pytest.raises(BridgeError, match="token"):
            Client(RATE, 2, port=bridge.port, token="")
        Client(RATE, 2, port=bridge.port, token="secret").close()


def test_another_version_of_the_protocol_is_refused(bridge: Bridge) -> None:
    with Wire(bridge.port) as wire:
        error = wire.ask("/hello", "isssiiiii", 4, "", "", "stream", 44100, 512, 2, 0, 99)
        assert error.arguments[:2] == (4, Code.VERSION)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "0.0.0.0"}, "all networks"),
        ({"host": ""}, "all networks"),
        ({"host": "::"}, "all networks"),
        ({"host": "192.168.1.5"}, "set a token"),
        ({"port": 70000}, "0 .any. to 65535"),
        ({"port": 5000, "http_port": 5000}, "use two"),
        ({"roots": (Path("/nowhere/at/all"),)}, "is not a directory"),
    ],
)
def test_an_invalid_option_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BridgeConfig(**options)


def test_a_port_in_use_is_an_error(bridge: Bridge) -> None:
    async def second() -> None:
        async with Bridge(BridgeConfig(port=bridge.port, http_port=0)):
            pass

    with pytest.raises(StemProverError, match="is a bridge running already"):
        bridge.run(second())


def test_the_token_file_is_created_checked_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEMPROVER_TOKEN", raising=False)
    assert read_token(None) is None
    file = tmp_path / "new" / "token"
    token = read_token(file)
    assert token is not None
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_token(file) == token
    file.chmod(0o644)
    with pytest.raises(OptionError, match="chmod 600"):
        read_token(file)
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(OptionError, match="is empty"):
        read_token(file)
    monkeypatch.setenv("STEMPROVER_TOKEN", "from-the-environment")
    assert read_token(None) == "from-the-environment"


def test_a_client_outlives_its_bridge() -> None:
    """It returns the dry signal with the same latency while the bridge is gone, and repaired audio once it is back."""
    make = FakeModelRepairer({"general": 0.0, "bleed": 1.0})
    stem = (0.1 * np.random.default_rng(0).standard_normal((2, 200 * 512))).astype(np.float32)
    out = []
    with running(make) as first:
        port = first.port
        client = Client(RATE, 2, port=port)
        client.select("bleed")
        for n in range(60):
            out.append(client.process(stem[:, n * 512 : n * 512 + 512], offline=True))
    for n in range(60, 100):
        out.append(client.process(stem[:, n * 512 : n * 512 + 512], offline=True))
    assert not client.connected
    with running(make, port=port):
        deadline = time.monotonic() + 8.0
        n = 100
        while not client.connected and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.connected
        for n in range(100, 200):
            out.append(client.process(stem[:, n * 512 : n * 512 + 512], offline=True))
        client.close()
    found, latency = np.concatenate(out, axis=1), client.latency_samples
    aligned = np.pad(stem, ((0, 0), (latency, 0)))[:, : found.shape[1]]
    ratio = found[0, latency:] / aligned[0, latency:]
    assert set(np.unique(np.round(ratio, 3))) == {1.0, 2.0}
    assert (ratio[-20 * 512 :] == 2.0).all()
    assert (ratio[61 * 512 - latency : 99 * 512 - latency] == 1.0).all()


def test_without_a_bridge_the_client_says_how_to_start_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hint = f"no bridge at 127.0.0.1:{port}; start one with: stemprover serve"
    with pytest.raises(BridgeLostError, match=f"^{hint}$"):
        Client(RATE, 2, port=port)


def test_two_clients_on_one_event_loop(bridge: Bridge) -> None:
    async def both() -> list[np.ndarray]:
        async def one(level: float) -> np.ndarray:
            stem = np.full((2, 20000), level, np.float32)
            async with AsyncClient(RATE, 2, port=bridge.port) as client:
                parts = [await client.process(stem[:, i : i + 1000], offline=True) for i in range(0, 20000, 1000)]
                return np.concatenate([*parts, await client.flush()], axis=1)[:, client.latency_samples :]

        return await asyncio.gather(one(0.25), one(-0.5))

    first, second = asyncio.run(both())
    assert (first == 0.25).all()
    assert (second == -0.5).all()


def test_the_bridges_memory_does_not_grow() -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def use(times: int) -> None:
        for _ in range(times):
            with Client(RATE, 2, port=bridge.port) as client:
                client.process(np.zeros((2, 4096), np.float32), offline=True)

    with running() as bridge:
        use(20)  # the allocator keeps what the first ones needed
        grown = []
        for _ in range(4):  # it may take more once, but not each time
            before = resident_mb()
            use(30)
            grown.append(resident_mb() - before)
        assert min(grown) < 2.0, grown
        assert not bridge.call(lambda: bridge.registry.streams)
