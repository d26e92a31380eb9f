"""The VST3 where its bridge is not there, dies, comes back, or has to be started: never silence, nor a click."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pedalboard
import pytest
from bridges import free_port, running
from fakes import FakeModelRepairer
from hosts import TAIL, Load, stream_through
from sounds import noise, tones
from stemprover.bridge.plugin.install import command_file
from stemprover.bridge.server.transport import Bridge


def test_without_a_bridge_offline_fails_visibly(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stem = noise(2.0, 44100)
    plugin = load(free_port(), timeout_s=0.5)
    np.testing.assert_array_equal(plugin.process(stem, 44100), stem)
    told = "offline rendering goes on without repair: no answer from the bridge for"
    assert told in (tmp_path / "config" / "stemprover" / "plugin.log").read_text()
    assert told in capfd.readouterr().err
    plugin = load(free_port(), timeout_s=0.5)
    plugin.offline_failure = "silence"
    assert not plugin.process(stem, 44100).any()


@contextlib.contextmanager
def dying(first: FakeModelRepairer, after_blocks: int, gone_s: float) -> Iterator[tuple[int, list[int]]]:
    """A bridge that dies without a word when it has had so many blocks, and another one on its port some time later.
    Gives the port, and how many blocks each has had."""
    port, stop, had = free_port(), threading.Event(), list[int]()

    def count(bridge: Bridge, until: float) -> int:
        most = 0  # of the streams that are open: they go with the plug-in
        while most < until and not stop.wait(0.01):
            streams = bridge.call(lambda: list(bridge.hub.streams.values()))
            most = max(most, sum(stream.counters.blocks for stream in streams))
        return most

    def bridges(there: threading.Event) -> None:
        with running(first, port=port) as bridge:
            there.set()
            had.append(count(bridge, after_blocks))
            bridge.call(lambda: [connection.transport.abort() for connection in bridge.connections])
        time.sleep(gone_s)
        with running(FakeModelRepairer({"general": 1.0}), port=port) as bridge:
            had.append(count(bridge, math.inf))

    with ThreadPoolExecutor(1) as pool:
        there = threading.Event()
        work = pool.submit(bridges, there)
        try:
            assert there.wait(10)
            yield port, had
        finally:
            stop.set()
            work.result(30)


def test_offline_a_bridge_that_dies_and_comes_back_is_waited_for(load: Load) -> None:
    stem = noise(8.0, 44100)
    with dying(FakeModelRepairer({"general": 1.0}, pause_s=0.01), after_blocks=30, gone_s=0.6) as (port, had):
        out = load(port).process(stem, 44100, buffer_size=512)
    assert had[0] >= 30
    assert had[1] > 0
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def live(plugin: Any, sound: np.ndarray, rate: int, block: int) -> np.ndarray:
    """Through the plug-in at the pace of the sound."""
    begun = time.monotonic()

    def paced() -> Iterator[np.ndarray]:
        for at in range(0, sound.shape[1], block):
            time.sleep(max(0.0, begun + at / rate - time.monotonic()))
            yield sound[:, at : at + block]

    return stream_through(plugin, paced(), rate, block)


def test_live_a_bridge_that_dies_is_never_silence_nor_a_click(load: Load) -> None:
    rate = 44100
    sound = tones(7.0, rate)
    with dying(FakeModelRepairer({"general": 1.0}), after_blocks=80, gone_s=1.0) as (port, had):
        out = live(load(port, live=True), sound, rate, 512)
    assert had[0] >= 80
    assert had[1] > 0
    given = sound[:, : out.shape[1]]
    # In phase all the time: what comes out is the sound, or up to twice of it.
    away = given[:, 1000:] * (np.abs(given[:, 1000:]) > 0.05)
    ratio = np.divide(out[:, 1000:], away, out=np.full_like(away, 1.5), where=away != 0)
    assert ratio.min() > 0.999
    assert ratio.max() < 2.001
    assert (ratio < 1.01).any(), "it was heard dry"
    half = out.shape[1] // 2
    for part in (slice(0, half), slice(half, None)):
        assert np.isclose(ratio[:, part], 2.0, atol=1e-3).any(), "and repaired, before and after"
    steepest = 2 * np.abs(np.diff(given)).max() + np.abs(given).max() / (0.005 * rate)
    assert np.abs(np.diff(out)).max() <= steepest * 1.001


def test_the_bridge_is_started_where_it_is_installed(
    load: Load, vst3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port, stem = free_port(), noise(1.0, 44100)
    program, note, log = tmp_path / "program", tmp_path / "started", tmp_path / "config" / "stemprover" / "plugin.log"
    program.write_text(f'#!/bin/sh\necho $$ "$@" > {note}\nexec {sys.executable} -m stemprover "$@"\n')
    program.chmod(0o755)
    load(port, timeout_s=0.5)
    monkeypatch.delenv("STEMPROVER_COMMAND")
    command_file().parent.mkdir(parents=True)
    command_file().write_text(f"{program}\n")  # as `stemprover plugin install` notes it
    unwilling = pedalboard.load_plugin(str(vst3))
    unwilling.start_bridge = False
    unwilling.process(stem, 44100)
    assert not note.exists(), "not where it is not wanted"
    log.unlink()
    monkeypatch.setenv("STEMPROVER_OFFLINE_TIMEOUT_S", "60")
    plugin = pedalboard.load_plugin(str(vst3))
    try:
        plugin.process(stem, 44100)
        assert not log.exists(), "it came through the bridge"
        words = note.read_text().split()[1:]
        assert words == ["serve", "--port", str(port), "--http-port", str(port + 1)]
    finally:
        if note.exists():
            os.kill(int(note.read_text().split()[0]), signal.SIGTERM)
            until_refused(port)


def until_refused(port: int) -> None:
    """Waits for the end of what listens there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it is just ending
        time.sleep(0.05)
    pytest.fail(f"port {port} is still open")
