"""The LV2 in jalv, in real time, with jackd's dummy driver."""

from __future__ import annotations

import shutil
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pedalboard
import pytest
from bridges import running
from fakes import FakeModelRepairer
from hosts import latency, needs
from stemprover.benchmarks.jack import URI, Jack, jack
from stemprover.bridge.server.transport import Bridge
from stemprover.engine.repair import Repairer

RATE = 48000
pytestmark = pytest.mark.quiet


@pytest.fixture(autouse=True)
def hosts() -> None:
    for program in ("jackd", "jack_lsp", "jack_bufsize", "jalv", "cc"):
        needs(shutil.which(program) is not None, program)
    needs(Path("/usr/include/jack/jack.h").is_file(), "JACK's header")


def tones(seconds: float, *frequencies: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    return np.stack([0.2 * np.sin(2 * np.pi * f * time_s) for f in frequencies]).astype(np.float32)


def played(host: Jack, audio: np.ndarray, rate: int) -> np.ndarray:
    """The output. If JACK skipped periods of a client, as it does on a busy machine, only the output before that; if
    this is less than a quarter of a second after the latency, plays again for up to three minutes."""
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        found = host.play(audio, 60)
        # JACK reports a skipped period late.
        usable = found.sound.shape[1] if not found.skipped else found.first_skipped - rate // 4
        if usable >= latency(rate) + rate // 4:
            return found.sound[:, :usable]
        time.sleep(2.0)  # whatever else the machine does may pass
    pytest.fail("JACK skipped periods in every play of three minutes: this machine is too busy")


def assert_comes_back(host: Jack, stem: np.ndarray, delay: int, rate: int) -> None:
    """Asserts that the output is the stem, delayed but otherwise unchanged."""
    out = played(host, stem, rate)
    np.testing.assert_array_equal(out[:, delay:], stem[:, : out.shape[1] - delay])


@pytest.mark.parametrize("period", [64, 256, 512])
def test_the_round_trip_is_the_reported_latency_plus_one_period(lv2: Path, tmp_path: Path, period: int) -> None:
    stem, mix = tones(3.0, 440.0, 1250.0), tones(3.0, 700.0, 330.0)
    model = FakeModelRepairer({"general": 1.0}, mix_gain=0.5)
    with running(model) as bridge, jack(tmp_path, lv2, bridge.port, period, waits=True) as host:
        out = host.play(np.concatenate([stem, mix]), 60)
    assert out.latency == latency(RATE)
    delay = latency(RATE) + period  # probe and host form a cycle, which JACK breaks with one period
    assert not out.sound[:, :delay].any()
    there = out.sound[:, delay:]
    dry, wet = stem[:, : there.shape[1]], (2 * stem + 0.5 * mix)[:, : there.shape[1]]
    inside = (there >= np.minimum(dry, wet) - 1e-3) & (there <= np.maximum(dry, wet) + 1e-3)
    assert inside.all(), "repaired with the side-chain, or dry where it was late: always in sync"
    assert (np.abs(there - wet) < 1e-3).mean() > 0.5, "and mostly repaired"


def test_without_a_bridge_the_stem_is_only_delayed(lv2: Path, tmp_path: Path) -> None:
    stem = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32)
    with jack(tmp_path, lv2, 9, 256, waits=True) as host:
        assert_comes_back(host, stem, latency(RATE) + 256, RATE)


def test_a_real_model_in_real_time(lv2: Path, tmp_path: Path, lively_bundle: Path) -> None:
    rng = np.random.default_rng(0)
    stem = tones(5.0, 440.0, 1250.0) + 0.05 * rng.standard_normal((2, 5 * RATE)).astype(np.float32)
    with (
        running(partial(Repairer, bundle=lively_bundle)) as bridge,
        jack(tmp_path, lv2, bridge.port, 256, waits=True) as host,
    ):
        out = host.play(stem, 60).sound
        (counters,) = bridge.call(lambda: [stream.counters for stream in bridge.registry.streams.values()])
    there = out[:, latency(RATE) + 256 :]
    correction = there - stem[:, : there.shape[1]]
    assert (np.abs(correction) > 1e-3).mean() > 0.25, "the model's correction arrives"
    shifted = [float(np.sum(there[:, 64:-64] * stem[:, 64 + by : there.shape[1] - 64 + by])) for by in range(-64, 65)]
    assert np.argmax(shifted) == 64, "in sync"
    assert counters.late < counters.blocks / 2


def test_opened_and_closed_a_hundred_times(lv2: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, jack(tmp_path, lv2, server.getsockname()[1], 256) as host:
        for _ in range(100):
            host.open_and_close()
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):  # nothing connected
            server.accept()


def states(folder: Path, vst3: Path, count: int) -> list[str]:
    """URIs of states that jalv lists as presets, made from sessions of the VST3. Each has another preset and random
    values of the parameters that leave the output of an identity bridge unchanged."""
    amounts = ("musical_noise", "bleed", "phasiness", "dull_highs", "smeared_transients")
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        plugin = pedalboard.load_plugin(str(vst3))
        for name in (*amounts, "wet", "bypass", "quality"):
            plugin.parameters[name].raw_value = float(rng.random())
        plugin.parameters["preset"].raw_value = number / 47
        state = ET.fromstring(plugin.raw_state[8:].rstrip(b"\0").decode()).findtext("IComponent")
        bundle = folder / "lv2" / f"state{number}.lv2"
        bundle.mkdir(parents=True)
        uri = f"urn:stemprover:state{number}"
        (bundle / "manifest.ttl").write_text(
            "@prefix lv2: <http://lv2plug.in/ns/lv2core#> .\n@prefix pset: <http://lv2plug.in/ns/ext/presets#> .\n"
            "@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n"
            "@prefix state: <http://lv2plug.in/ns/ext/state#> .\n"
            f'<{uri}> a pset:Preset ; lv2:appliesTo <{URI}> ; rdfs:label "state {number}" ;\n'
            f'  rdfs:seeAlso <manifest.ttl> ; state:state [ <{URI}:StateString> "{state}" ] .\n'
        )
        found.append(uri)
    return found


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_periods_states_and_switches_at_random(
    lv2: Path, vst3: Path, tmp_path: Path, plugin_environment: Callable[..., None], rate: int
) -> None:
    uris, over, presets = states(tmp_path, vst3, 6), threading.Event(), set[str]()
    rng = np.random.default_rng(rate)
    stem = (0.2 * rng.standard_normal((2, round(1.2 * rate)))).astype(np.float32)

    def switch(bridge: Bridge, host: Jack) -> None:
        chance = np.random.default_rng(1)
        while not over.wait(float(chance.uniform(0.01, 0.1))):
            host.tell(f"preset {chance.choice(uris)}" if chance.random() < 0.7 else f"set enabled {chance.integers(2)}")
            presets.update(bridge.call(lambda: [stream.selection.name for stream in bridge.registry.streams.values()]))

    with (
        running(FakeModelRepairer()) as bridge, jack(tmp_path, lv2, bridge.port, 256, rate) as host,
        ThreadPoolExecutor(1) as pool,
    ):  # fmt: skip
        switching = pool.submit(switch, bridge, host)
        try:
            for period in rng.permutation([256, 512, 1024])[:2]:
                host.set_period(int(period))
                assert_comes_back(host, stem, latency(rate) + int(period), rate)
        finally:
            over.set()
        switching.result(30)
        assert bridge.call(lambda: len(bridge.registry.streams)) == 1
        log = (tmp_path / "jalv.log").read_text()
    assert len(presets) > 1, "the states reached the bridge"
    assert "Failed" not in log
    assert "error" not in log
