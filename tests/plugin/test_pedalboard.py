"""The VST3 in pedalboard: it renders offline, as pedalboard always asks for, and (STEMPROVER_LIVE) as if live."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pedalboard
import pytest
import soundfile
from bridges import running
from fakes import FakeModelRepairer
from hosts import latency
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from stemprover.bridge.plugin_folders import command_file
from stemprover.bridge.server import Bridge
from stemprover.engine.repair import Repairer

Load = Callable[..., Any]
TAIL = 128  # the change is faded in and out where the sound comes out of silence or ends in it
IDENTITY, TWICE = FakeModelRepairer(), FakeModelRepairer({"general": 1.0, "bleed": 2.0})


def noise(seconds: float, rate: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def tones(seconds: float, rate: int) -> np.ndarray:
    """What a resampler leaves as it is, but for its ripple."""
    time_s = np.arange(round(seconds * rate)) / rate
    return np.stack([0.2 * np.sin(2 * np.pi * f * time_s) for f in (440.0, 1250.0)]).astype(np.float32)


def stream_through(plugin: Any, blocks: Iterable[np.ndarray], rate: int, size: int) -> np.ndarray:
    """Block by block, as a host plays; what comes out is put in its place beside what went in. (pedalboard cuts off
    less than the latency in this mode: it counts what it sent through while it loaded the plug-in.)"""
    parts, given = [], 0
    for block in blocks:
        parts.append(plugin.process(block, rate, buffer_size=size, reset=False))
        given += block.shape[1]
    out = np.concatenate(parts, axis=1)
    return out[:, latency(rate) - (given - out.shape[1]) :]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("block", [1, 16, 128, 480, 512, 2048, 8192])
def test_the_identity_is_exact_after_its_latency(load: Load, rate: int, block: int) -> None:
    stem = noise(0.3 if block == 1 else 1.5, rate)
    with running(IDENTITY) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(stem, rate, buffer_size=block)
        (stream,) = bridge.call(lambda: list(bridge.hub.streams.values()))
        assert stream.counters.blocks > 0, "it went through the bridge"
    np.testing.assert_array_equal(out, stem)


@pytest.mark.parametrize("block", [1, 16, 128, 480, 512, 2048, 8192])
def test_what_the_bridge_makes_is_what_comes_out(load: Load, block: int) -> None:
    stem = noise(0.5 if block == 1 else 1.5, 44100)
    with running(TWICE) as bridge:
        out = load(bridge.port).process(stem, 44100, buffer_size=block)
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


@pytest.mark.parametrize("rate", [32000, 48000, 88200, 96000, 192000])
def test_at_other_rates_the_change_is_in_its_place(load: Load, rate: int) -> None:
    stem = tones(1.0, rate)
    with running(TWICE) as bridge:
        out = load(bridge.port).process(stem, rate, buffer_size=512)
    edge = rate // 10
    np.testing.assert_allclose(out[:, edge:-edge], 2 * stem[:, edge:-edge], atol=1e-3)


@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_blocks_of_any_size_give_the_same(load: Load, sizes: list[int], seed: int) -> None:
    stem = noise(1.0, 44100, seed=seed)
    with running(TWICE) as bridge:
        plugin = load(bridge.port)
        sizes = [5000, *sizes]  # the largest first: pedalboard prepares a plug-in anew for a block that is larger
        sound = np.concatenate([stem, np.zeros((2, latency(44100) + 5000), np.float32)], axis=1)
        ends = list(itertools.takewhile(lambda end: end < sound.shape[1], itertools.accumulate(itertools.cycle(sizes))))
        out = stream_through(plugin, np.split(sound, ends, axis=1), 44100, 8192)[:, : stem.shape[1]]
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def test_mono(load: Load) -> None:
    stem = noise(1.0, 44100, channels=1)
    with running(TWICE) as bridge:
        out = load(bridge.port).process(stem, 44100)
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def test_channels_3_and_4_are_the_song(load: Load) -> None:
    stem, song = noise(1.0, 44100), noise(1.0, 44100, seed=1)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(np.concatenate([stem, song]), 44100)
        assert [s.format.mix_channels for s in bridge.call(lambda: list(bridge.hub.streams.values()))] == [2]
    np.testing.assert_allclose(out[:2, :-TAIL], (2 * stem + 0.5 * song)[:, :-TAIL], atol=1e-5)
    np.testing.assert_array_equal(out[2:], song)  # as late as the rest


def test_a_silent_side_chain_is_no_song(load: Load) -> None:
    stem = noise(3.0, 44100)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(np.concatenate([stem, np.zeros_like(stem)]), 44100)
        assert [s.format.mix_channels for s in bridge.call(lambda: list(bridge.hub.streams.values()))] == [0]
    np.testing.assert_array_equal(out[:2, :-TAIL], 2 * stem[:, :-TAIL])


def test_a_song_that_comes_later_is_used_from_there(load: Load) -> None:
    stem, song = noise(6.0, 44100), noise(6.0, 44100, seed=1)
    song[:, : 3 * 44100] = 0.0
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        out = load(bridge.port).process(np.concatenate([stem, song]), 44100)
    np.testing.assert_array_equal(out[:2, : 2 * 44100], 2 * stem[:, : 2 * 44100])
    late = slice(4 * 44100, -TAIL)
    np.testing.assert_allclose(out[:2, late], (2 * stem + 0.5 * song)[:, late], atol=1e-6)
    assert np.abs(out[:2] - 2 * stem).max() < 0.51 * np.abs(song).max() + 1e-6, "nothing is lost in between"


@pytest.mark.parametrize("late", [False, True])
def test_a_song_that_the_host_brings_late_is_told_of(load: Load, tmp_path: Path, late: bool) -> None:
    rate = 44100
    stem, rest = noise(10.0, rate), noise(10.0, rate, seed=1)
    song = np.roll(stem + rest, latency(rate) if late else 0, axis=1)
    with running(IDENTITY) as bridge:
        load(bridge.port).process(np.concatenate([stem, song]), rate)
    log = tmp_path / "config" / "stemprover" / "plugin.log"
    told = log.read_text() if log.exists() else ""
    assert (f"the host brings the song {latency(rate)} samples late" in told) == late


def test_preset_wet_bypass_and_gain(load: Load) -> None:
    stem = noise(1.0, 44100)
    cut = slice(0, stem.shape[1] - TAIL)
    with running(TWICE) as bridge:
        plugin = load(bridge.port)
        plugin.preset = "bleed"
        np.testing.assert_array_equal(plugin.process(stem, 44100)[:, cut], 3 * stem[:, cut])
        plugin.wet = 50.0
        np.testing.assert_allclose(plugin.process(stem, 44100)[:, cut], 2 * stem[:, cut], atol=1e-6)
        plugin.output_db = -6.0
        np.testing.assert_allclose(plugin.process(stem, 44100)[:, cut], 10**-0.3 * 2 * stem[:, cut], atol=1e-6)
        plugin.bypass = True
        np.testing.assert_array_equal(plugin.process(stem, 44100), stem)


def test_a_blend_and_the_quality_reach_the_bridge(load: Load) -> None:
    stem = noise(1.0, 44100)
    with running(IDENTITY) as bridge:
        plugin = load(bridge.port)
        plugin.preset, plugin.bleed, plugin.phasiness, plugin.quality = "blend", 120.0, 40.0, "draft"
        plugin.process(stem, 44100)
        (stream,) = bridge.call(lambda: list(bridge.hub.streams.values()))
        assert stream.selection.quality == "draft"
        weights = {path.parent.name: round(weight, 2) for path, weight in stream.selection.preset.adapters.items()}
        assert weights == {"bleed": 1.2, "phasiness": 0.4}


def test_the_state_is_saved_and_restored(load: Load) -> None:
    first = load()
    first.preset, first.wet, first.quality, first.bleed = "phasiness", 30.0, "best", 90.0
    first.offline_failure, first.start_bridge = "silence", False
    second = load()
    assert (second.preset, second.wet) == ("general", 100.0)
    second.raw_state = first.raw_state
    assert (second.preset, second.wet, second.quality, second.bleed) == ("phasiness", 30.0, "best", 90.0)
    assert (second.offline_failure, second.start_bridge) == ("silence", False)


def in_juces_base64(data: bytes) -> str:
    """Six bits a character, the lowest first, behind the size (juce::MemoryBlock::toBase64Encoding)."""
    letters = ".ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+"
    number = int.from_bytes(data, "little")
    return f"{len(data)}." + "".join(letters[(number >> 6 * i) & 63] for i in range(-(-8 * len(data) // 6)))


def as_xml(text: str) -> bytes:
    """What JUCE writes of an XML tree: a magic word, the size, the text."""
    return b"VC2!" + struct.pack("<I", len(text.encode())) + text.encode() + b"\0"


def set_own_state(plugin: Any, data: bytes) -> None:
    """The bytes that a session has kept of the plug-in, as they reach the plug-in itself."""
    whole = ET.fromstring(plugin.raw_state[8:].rstrip(b"\0").decode())
    part = whole.find("IComponent")
    assert part is not None
    part.text = in_juces_base64(data)
    plugin.raw_state = as_xml(ET.tostring(whole, encoding="unicode"))


def own_state(preset: str, wet: str, more: str = "") -> bytes:
    parameters = f'<PARAM id="preset" value="0"/><PARAM id="wet" value="{wet}"/>'
    return as_xml(f'<StemProver presetName="{preset}">{parameters}{more}</StemProver>')


def test_what_a_session_has_kept_reaches_the_plug_in(load: Load) -> None:
    plugin = load()
    set_own_state(plugin, own_state("bleed", "0.5"))
    assert (plugin.preset, plugin.wet) == ("bleed", 50.0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300), kept=st.integers(0, 60))
def test_a_damaged_state_changes_nothing(load: Load, junk: bytes, kept: int) -> None:
    plugin = load()
    plugin.wet = 30.0
    plugin.raw_state = junk
    set_own_state(plugin, junk)
    set_own_state(plugin, own_state("bleed", "0.5")[:kept])
    set_own_state(plugin, own_state("bleed", "0.5").replace(b"StemProver", b"SomeOthers"))
    assert (plugin.preset, plugin.wet) == ("general", 30.0)


NAMES = "".join(f'<place name="n{number}"/>' for number in range(1000))


@pytest.mark.parametrize(
    ("state", "preset", "wet"),
    [
        (own_state("no-such-preset", "7.5"), "no-such-preset", 100.0),
        (own_state("bleed", "nonsense"), "bleed", 0.0),
        (own_state("", "0.5"), "general", 50.0),
        (own_state("bleed", "0.5", f"<presets>{NAMES}</presets>"), "bleed", 50.0),
    ],
    ids=["a preset that is not there, out of range", "no number", "no preset", "a thousand presets"],
)
def test_a_strange_state_is_taken_as_far_as_it_goes(load: Load, state: bytes, preset: str, wet: float) -> None:
    with running(IDENTITY) as bridge:
        plugin, stem = load(bridge.port), noise(0.3, 44100)
        set_own_state(plugin, state)
        assert plugin.wet == wet
        assert plugin.parameters["preset"].string_value == preset
        np.testing.assert_array_equal(plugin.process(stem, 44100), stem)


def test_a_preset_of_the_user_keeps_its_name(load: Load, no_user_presets: Path) -> None:
    for name in ("zither", "alphorn"):
        (no_user_presets / name).mkdir()
        text = f'name = "{name}"\ntitle = "Mine"\ndescription = "My own."\nfor = "vocals"\n'
        (no_user_presets / name / "preset.toml").write_text(text)
    stem = noise(1.0, 44100)
    with running(IDENTITY) as bridge:
        first = load(bridge.port)
        first.process(stem, 44100)
        place = first.parameters["preset"]  # pedalboard has listed its values before the bridge told of this one
        place.raw_value = next(i / 47 for i in range(48) if place.get_text_for_raw_value(i / 47) == "zither")
        state = first.raw_state
        shutil.rmtree(no_user_presets / "alphorn")  # the list changes
        second = load(bridge.port)
        second.raw_state = state
        assert second.parameters["preset"].string_value == "zither"
        second.process(stem, 44100)
        chosen = bridge.call(lambda: [stream.selection.name for stream in bridge.hub.streams.values()])
        assert "zither" in chosen


@pytest.mark.parametrize("rate", [44100, 48000, 88200, 96000, 192000])
def test_the_latency_is_that_of_the_contract(load: Load, rate: int) -> None:
    plugin, click = load(timeout_s=0.2), np.zeros((2, 4096), np.float32)
    click[:, 0] = 1.0
    plugin.process(np.zeros((2, 4096), np.float32), rate)
    blocks = [click, *[np.zeros_like(click)] * (latency(rate) // 4096 + 1)]
    out = np.concatenate([plugin.process(block, rate, reset=False) for block in blocks], axis=1)
    assert np.flatnonzero(out[0]).tolist() == [latency(rate)]


def test_loading_and_scanning_stay_off_the_network(load: Load) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.7)
        plugin = load(server.getsockname()[1])
        plugin.process(np.zeros((2, 1000), np.float32), 44100, reset=False)
        with pytest.raises(TimeoutError):
            server.accept()
        plugin.process(noise(0.2, 44100), 44100, reset=False)  # sound: now it does
        server.settimeout(5)
        server.accept()[0].close()


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


OPEN_AND_CLOSE = """
import sys
import numpy as np, pedalboard
stem = np.random.default_rng(0).standard_normal((2, 20000)).astype(np.float32)
for number in range(100):
    plugin = pedalboard.load_plugin(sys.argv[1])
    if number % 10 == 0:
        assert np.array_equal(plugin.process(stem, 44100), stem)
    del plugin
"""


def test_opened_and_closed_a_hundred_times(vst3: Path, plugin_environment: Callable[..., None]) -> None:
    with running(IDENTITY, most_streams=32) as bridge:
        plugin_environment(bridge.port)
        subprocess.run([sys.executable, "-c", OPEN_AND_CLOSE, str(vst3)], check=True, timeout=120)
        deadline = time.monotonic() + 10
        while bridge.call(lambda: len(bridge.hub.streams)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert bridge.call(lambda: len(bridge.hub.streams)) == 0, "every stream was closed"


def test_changing_rates_sizes_and_parameters_at_random(load: Load) -> None:
    rng = np.random.default_rng(3)
    with running(IDENTITY) as bridge:
        plugin = load(bridge.port)
        for _ in range(25):
            rate, block = int(rng.choice([44100, 48000, 96000])), int(rng.choice([1, 33, 512, 4096]))
            channels = int(rng.integers(1, 3))
            for name in ("preset", "quality", "bleed", "wet"):
                parameter = plugin.parameters[name]
                parameter.raw_value = float(rng.choice([0.0, 0.03, 0.06, 1.0]) if name == "preset" else rng.random())
            stem = noise(0.05 if block == 1 else 0.4, rate, channels)
            np.testing.assert_array_equal(plugin.process(stem, rate, buffer_size=block), stem)


def test_several_at_once_in_several_threads(load: Load) -> None:
    stems = [noise(1.0, 44100, seed=i) for i in range(3)]
    found: dict[int, np.ndarray] = {}
    with running(TWICE, most_streams=8) as bridge:
        plugins = [load(bridge.port) for _ in stems]
        for plugin in plugins:
            plugin.process(np.zeros((2, 8192), np.float32), 44100)  # prepared, here where it has to be

        def run(i: int) -> None:
            found[i] = stream_through(plugins[i], [stems[i]], 44100, 8192)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, stem in enumerate(stems):
        assert found[i].shape[1] > 20000
        np.testing.assert_array_equal(found[i][:, TAIL:], 2 * stem[:, TAIL : found[i].shape[1]])


def test_the_real_model_gives_what_repair_gives(load: Load, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    demo = Path(__file__).resolve().parents[2] / "presets" / "demo"
    (stem, rate), (song, _) = (
        soundfile.read(demo / name, dtype="float32", frames=4 * 44100) for name in ("separated.flac", "song.flac")
    )
    pause = np.zeros((8192, 2), np.float32)
    for name, sound in (("stem", stem), ("song", song)):
        soundfile.write(tmp_path / f"{name}.wav", np.concatenate([sound, pause]), rate, subtype="FLOAT")
    shown = run_cli("repair", tmp_path / "stem.wav", "--mix", tmp_path / "song.wav", "-o", tmp_path / "out.wav")
    assert shown.code == 0, shown.err
    wanted = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    four = np.concatenate([np.concatenate([stem, song], axis=1), np.concatenate([pause, pause], axis=1)]).T
    with running(Repairer) as bridge:
        out = load(bridge.port, timeout_s=60).process(np.ascontiguousarray(four), rate, buffer_size=512)
    np.testing.assert_allclose(out[:2], wanted, atol=1e-4)
    assert np.abs(wanted[:, : len(stem)] - stem.T).max() > 1e-2, "there was something to repair"


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


def test_the_render_script(
    vst3: Path, plugin_environment: Callable[..., None], make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "render_plugin.py"
    stem, song = make_audio("stem.wav", seconds=1.2), make_audio("song.wav", seconds=1.2, seed=1)
    with running(FakeModelRepairer({"bleed": 1.0}, mix_gain=0.5)) as bridge:
        plugin_environment(bridge.port)
        command = [sys.executable, example, vst3, stem, song]
        subprocess.run([*command, tmp_path / "out.wav", "--preset", "bleed"], check=True, timeout=60)
    plugin_environment(timeout_s=0.5)
    for output, why in (("out.wav", "there already"), ("other.wav", "does not answer")):
        shown = subprocess.run([*command, tmp_path / output], check=False, timeout=60, capture_output=True, text=True)
        assert shown.returncode == 1
        assert why in shown.stderr.splitlines()[-1]
    assert not (tmp_path / "other.wav").exists()
    out, given, beside = (soundfile.read(path, dtype="float32")[0].T for path in (tmp_path / "out.wav", stem, song))
    # (pedalboard takes 16-bit samples for a share of 32767, soundfile for one of 32768)
    np.testing.assert_allclose(out[:, :-TAIL], (2 * given + 0.5 * beside)[:, :-TAIL] * (32768 / 32767), atol=1e-5)
