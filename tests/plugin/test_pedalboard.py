"""The VST3 in pedalboard, offline as pedalboard always is, and (STEMPROVER_LIVE) as if live."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bridges import running
from fakes import FakeModelRepairer
from hosts import IDENTITY, TAIL, TWICE, Load, latency, stream_through
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from paths import DEMO, ROOT
from sounds import noise, tones
from stemprover.engine.repair import Repairer


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("block", [1, 16, 128, 480, 512, 2048, 8192])
def test_an_identity_bridge_returns_the_stem_exactly(load: Load, rate: int, block: int) -> None:
    stem = noise(0.3 if block == 1 else 1.5, rate)
    with running(IDENTITY) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(stem, rate, buffer_size=block)
        (stream,) = bridge.call(lambda: list(bridge.registry.streams.values()))
        assert stream.counters.blocks > 0, "it went through the bridge"
    np.testing.assert_array_equal(out, stem)


@pytest.mark.parametrize("block", [1, 16, 128, 480, 512, 2048, 8192])
def test_the_output_is_what_the_bridge_returns(load: Load, block: int) -> None:
    stem = noise(0.5 if block == 1 else 1.5, 44100)
    with running(TWICE) as bridge:
        out = load(bridge.port).process(stem, 44100, buffer_size=block)
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


@pytest.mark.parametrize("rate", [32000, 48000, 88200, 96000, 192000])
def test_the_correction_is_in_sync_at_other_rates(load: Load, rate: int) -> None:
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
def test_any_block_sizes_give_the_same_output(load: Load, sizes: list[int], seed: int) -> None:
    stem = noise(1.0, 44100, seed=seed)
    with running(TWICE) as bridge:
        plugin = load(bridge.port)
        sizes = [5000, *sizes]  # the largest first: pedalboard prepares the plug-in again for a larger block
        audio = np.concatenate([stem, np.zeros((2, latency(44100) + 5000), np.float32)], axis=1)
        ends = list(itertools.takewhile(lambda end: end < audio.shape[1], itertools.accumulate(itertools.cycle(sizes))))
        out = stream_through(plugin, np.split(audio, ends, axis=1), 44100, 8192)[:, : stem.shape[1]]
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def test_mono(load: Load) -> None:
    stem = noise(1.0, 44100, channels=1)
    with running(TWICE) as bridge:
        out = load(bridge.port).process(stem, 44100)
    np.testing.assert_array_equal(out[:, :-TAIL], 2 * stem[:, :-TAIL])


def test_channels_3_and_4_are_the_mix(load: Load) -> None:
    stem, mix = noise(1.0, 44100), noise(1.0, 44100, seed=1)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(np.concatenate([stem, mix]), 44100)
        assert [s.format.mix_channels for s in bridge.call(lambda: list(bridge.registry.streams.values()))] == [2]
    np.testing.assert_allclose(out[:2, :-TAIL], (2 * stem + 0.5 * mix)[:, :-TAIL], atol=1e-5)
    np.testing.assert_array_equal(out[2:], mix)  # with the stem's latency


def test_a_silent_side_chain_is_ignored(load: Load) -> None:
    stem = noise(3.0, 44100)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        plugin = load(bridge.port)
        out = plugin.process(np.concatenate([stem, np.zeros_like(stem)]), 44100)
        assert [s.format.mix_channels for s in bridge.call(lambda: list(bridge.registry.streams.values()))] == [0]
    np.testing.assert_array_equal(out[:2, :-TAIL], 2 * stem[:, :-TAIL])


def test_a_mix_that_starts_later_is_used_from_there(load: Load) -> None:
    stem, mix = noise(6.0, 44100), noise(6.0, 44100, seed=1)
    mix[:, : 3 * 44100] = 0.0
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        out = load(bridge.port).process(np.concatenate([stem, mix]), 44100)
    np.testing.assert_array_equal(out[:2, : 2 * 44100], 2 * stem[:, : 2 * 44100])
    late = slice(4 * 44100, -TAIL)
    np.testing.assert_allclose(out[:2, late], (2 * stem + 0.5 * mix)[:, late], atol=1e-6)
    assert np.abs(out[:2] - 2 * stem).max() < 0.51 * np.abs(mix).max() + 1e-6, "nothing is lost in between"


@pytest.mark.parametrize("late", [False, True])
def test_a_mix_that_the_host_sends_late_is_reported(load: Load, tmp_path: Path, late: bool) -> None:
    rate = 44100
    stem, residual = noise(10.0, rate), noise(10.0, rate, seed=1)
    mix = np.roll(stem + residual, latency(rate) if late else 0, axis=1)
    with running(IDENTITY) as bridge:
        load(bridge.port).process(np.concatenate([stem, mix]), rate)
    log = tmp_path / "config" / "stemprover" / "plugin.log"
    logged = log.read_text() if log.exists() else ""
    assert (f"the host sends the mix {latency(rate)} samples late" in logged) == late


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
        (stream,) = bridge.call(lambda: list(bridge.registry.streams.values()))
        assert stream.selection.quality == "draft"
        weights = {path.parent.name: round(weight, 2) for path, weight in stream.selection.preset.adapters.items()}
        assert weights == {"bleed": 1.2, "phasiness": 0.4}


@pytest.mark.parametrize("rate", [44100, 48000, 88200, 96000, 192000])
def test_the_latency_is_the_documented_one(load: Load, rate: int) -> None:
    plugin, click = load(timeout_s=0.2), np.zeros((2, 4096), np.float32)
    click[:, 0] = 1.0
    plugin.process(np.zeros((2, 4096), np.float32), rate)
    blocks = [click, *[np.zeros_like(click)] * (latency(rate) // 4096 + 1)]
    out = np.concatenate([plugin.process(block, rate, reset=False) for block in blocks], axis=1)
    assert np.flatnonzero(out[0]).tolist() == [latency(rate)]


def test_loading_and_scanning_make_no_connection(load: Load) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.7)
        plugin = load(server.getsockname()[1])
        plugin.process(np.zeros((2, 1000), np.float32), 44100, reset=False)
        with pytest.raises(TimeoutError):
            server.accept()
        plugin.process(noise(0.2, 44100), 44100, reset=False)  # audio: now it connects
        server.settimeout(5)
        server.accept()[0].close()


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
        while bridge.call(lambda: len(bridge.registry.streams)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert bridge.call(lambda: len(bridge.registry.streams)) == 0, "every stream was closed"


def test_random_rates_block_sizes_and_parameters(load: Load) -> None:
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


def test_several_instances_in_several_threads(load: Load) -> None:
    stems = [noise(1.0, 44100, seed=i) for i in range(3)]
    outputs: dict[int, np.ndarray] = {}
    with running(TWICE, most_streams=8) as bridge:
        plugins = [load(bridge.port) for _ in stems]
        for plugin in plugins:
            plugin.process(np.zeros((2, 8192), np.float32), 44100)  # prepare on this thread, as required

        def run(i: int) -> None:
            outputs[i] = stream_through(plugins[i], [stems[i]], 44100, 8192)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i, stem in enumerate(stems):
        assert outputs[i].shape[1] > 20000
        np.testing.assert_array_equal(outputs[i][:, TAIL:], 2 * stem[:, TAIL : outputs[i].shape[1]])


def test_the_real_model_gives_the_same_as_repair(load: Load, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    (stem, rate), (mix, _) = (
        soundfile.read(DEMO / name, dtype="float32", frames=4 * 44100) for name in ("separated.flac", "song.flac")
    )
    pause = np.zeros((8192, 2), np.float32)
    for name, audio in (("stem", stem), ("mix", mix)):
        soundfile.write(tmp_path / f"{name}.wav", np.concatenate([audio, pause]), rate, subtype="FLOAT")
    arguments = tmp_path / "stem.wav", "--mix", tmp_path / "mix.wav", "-o", tmp_path / "out.wav", "--preset", "general"
    shown = run_cli("repair", *arguments)
    assert shown.code == 0, shown.err
    wanted = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    four = np.concatenate([np.concatenate([stem, mix], axis=1), np.concatenate([pause, pause], axis=1)]).T
    with running(Repairer) as bridge:
        out = load(bridge.port, timeout_s=60).process(np.ascontiguousarray(four), rate, buffer_size=512)
    np.testing.assert_allclose(out[:2], wanted, atol=1e-4)
    assert np.abs(wanted[:, : len(stem)] - stem.T).max() > 1e-2, "there was something to repair"


def test_the_example_script_renders_and_reports_errors(
    vst3: Path, plugin_environment: Callable[..., None], make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    example = ROOT / "examples" / "render_plugin.py"
    stem, mix = make_audio("stem.wav", seconds=1.2), make_audio("mix.wav", seconds=1.2, seed=1)
    with running(FakeModelRepairer({"bleed": 1.0}, mix_gain=0.5)) as bridge:
        plugin_environment(bridge.port)
        command = [sys.executable, example, vst3, stem, mix]
        subprocess.run([*command, tmp_path / "out.wav", "--preset", "bleed"], check=True, timeout=60)
    plugin_environment(timeout_s=0.5)
    for output, why in (("out.wav", "there already"), ("other.wav", "does not answer")):
        shown = subprocess.run([*command, tmp_path / output], check=False, timeout=60, capture_output=True, text=True)
        assert shown.returncode == 1
        assert why in shown.stderr.splitlines()[-1]
    assert not (tmp_path / "other.wav").exists()
    out, dry, beside = (soundfile.read(path, dtype="float32")[0].T for path in (tmp_path / "out.wav", stem, mix))
    # (pedalboard divides 16-bit samples by 32767, soundfile by 32768)
    np.testing.assert_allclose(out[:, :-TAIL], (2 * dry + 0.5 * beside)[:, :-TAIL] * (32768 / 32767), atol=1e-5)
