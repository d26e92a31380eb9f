"""The VST3 when its bridge is missing, dies, comes back or has to be started: neither silence nor a click."""

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


def test_an_offline_render_without_a_bridge_is_reported(
    load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stem = noise(2.0, 44100)
    plugin = load(free_port(), timeout_s=0.5)
    np.testing.assert_array_equal(plugin.process(stem, 44100), stem)
    message = "offline rendering continues without repair: no answer from the bridge for"
    assert message in (tmp_path / "config" / "stemprover" / "plugin.log").read_text()
    assert message in capfd.readouterr().err
    plugin = load(free_port(), timeout_s=0.5)
    plugin.offline_failure = "silence"
    assert not plugin.process(stem, 44100).any()


@contextlib.contextmanager
def dying(first: FakeModelRepairer, after_blocks: int, gone_s: float) -> Iterator[tuple[int, list[int]]]:
    """A bridge that breaks off after some blocks without a goodbye, and another one on the same port `gone_s` later.
    Yields the port, and a list that collects how many blocks each received."""
    port, stop, counts = free_port(), threading.Event(), list[int]()

    def count(bridge: Bridge, until: float) -> int:
        most = 0  # the maximum, as streams disappear with the plug-in
        while most < until and not stop.wait(0.01):
            streams = bridge.call(lambda: list(bridge.registry.streams.values()))
            most = max(most, sum(stream.counters.blocks for stream in streams))
        return most

    def bridges(there: threading.Event) -> None:
        with running(first, port=port) as bridge:
            there.set()
            counts.append(count(bridge, after_blocks))
            bridge.call(lambda: [connection.transport.abort() for connection in bridge.connections])
        time.sleep(gone_s)
        with running(FakeModelRepairer({"general": 1.0}), port=port) as bridge:
            counts.append(count(bridge, math.inf))

    with ThreadPoolExecutor(1) as pool:
        there = threading.Event()
        work = pool.submit(bridges, there)
        try:
            assert there.wait(10)
            yield port, counts
        finally:
            stop.set()
            work.result(30)


def test_an_offline_render_waits_for_a_bridge_that_dies_and_comes_back(load: Load) -> None:
    stem = noise(8.0, 44100)
    with dying(FakeModelRepairer({"general": 1.0}, pause_s=0.01), after_blocks=30, gone_s=0.6) as (port, counts):
        out = load(port).process(stem, 44100, buffer_size=512)
    assert counts[0] >= 30
    assert counts[1] > 0
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def play_live(plugin: Any, audio: np.ndarray, rate: int, block: int) -> np.ndarray:
    """Plays audio through the plug-in in real time."""
    begun = time.monotonic()

    def paced() -> Iterator[np.ndarray]:
        for at in range(0, audio.shape[1], block):
            time.sleep(max(0.0, begun + at / rate - time.monotonic()))
            yield audio[:, at : at + block]

    return stream_through(plugin, paced(), rate, block)


def test_a_bridge_that_dies_live_causes_neither_silence_nor_a_click(load: Load) -> None:
    rate = 44100
    stem = tones(7.0, rate)
    with dying(FakeModelRepairer({"general": 1.0}), after_blocks=80, gone_s=1.0) as (port, counts):
        out = play_live(load(port, live=True), stem, rate, 512)
    assert counts[0] >= 80
    assert counts[1] > 0
    dry = stem[:, : out.shape[1]]
    # In phase throughout: the output is between one and two times the input.
    loud = dry[:, 1000:] * (np.abs(dry[:, 1000:]) > 0.05)
    ratio = np.divide(out[:, 1000:], loud, out=np.full_like(loud, 1.5), where=loud != 0)
    assert ratio.min() > 0.999
    assert ratio.max() < 2.001
    assert (ratio < 1.01).any(), "some of it is dry"
    half = out.shape[1] // 2
    for part in (slice(0, half), slice(half, None)):
        assert np.isclose(ratio[:, part], 2.0, atol=1e-3).any(), "and some repaired, before and after the outage"
    steepest = 2 * np.abs(np.diff(dry)).max() + np.abs(dry).max() / (0.005 * rate)
    assert np.abs(np.diff(out)).max() <= steepest * 1.001


def test_an_installed_bridge_is_started(
    load: Load, vst3: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port, stem = free_port(), noise(1.0, 44100)
    program, note, log = tmp_path / "program", tmp_path / "started", tmp_path / "config" / "stemprover" / "plugin.log"
    program.write_text(f'#!/bin/sh\necho $$ "$@" > {note}\nexec {sys.executable} -m stemprover "$@"\n')
    program.chmod(0o755)
    load(port, timeout_s=0.5)
    monkeypatch.delenv("STEMPROVER_COMMAND")
    command_file().parent.mkdir(parents=True)
    command_file().write_text(f"{program}\n")  # as `stemprover plugin install` does
    disabled = pedalboard.load_plugin(str(vst3))
    disabled.start_bridge = False
    disabled.process(stem, 44100)
    assert not note.exists(), "not started when switched off"
    log.unlink()
    monkeypatch.setenv("STEMPROVER_OFFLINE_TIMEOUT_S", "60")
    plugin = pedalboard.load_plugin(str(vst3))
    try:
        plugin.process(stem, 44100)
        assert not log.exists(), "no failure logged: it was repaired"
        words = note.read_text().split()[1:]
        assert words == ["serve", "--port", str(port), "--http-port", str(port + 1)]
    finally:
        if note.exists():
            os.kill(int(note.read_text().split()[0]), signal.SIGTERM)
            until_refused(port)


def until_refused(port: int) -> None:
    """Waits until nothing listens on the port."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it is shutting down
        time.sleep(0.05)
    pytest.fail(f"port {port} is still open")
