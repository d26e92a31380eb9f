"""Streams through a bridge: their audio, latency and settings, and what happens if something goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bridges import Wire, running
from fakes import FakeModelRepairer
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound
from paths import DEMO
from stemprover.bridge.client.client import BridgeError, BridgeLostError, Client
from stemprover.bridge.client.remote import RemoteRepairer
from stemprover.bridge.osc import Code, Flag, Message, Status, from_blob, to_blob
from stemprover.bridge.server.transport import Bridge
from stemprover.engine.preset import Preset, load_preset
from stemprover.engine.repair import SEPARATED_BLEND, Repairer

RATE = 44100
BLOCKS = (1, 16, 64, 65, 128, 480, 512, 1024, 8192)


@pytest.fixture(scope="module")
def identity() -> Iterator[Bridge]:
    with running() as bridge:
        yield bridge


@pytest.fixture(scope="module")
def doubling() -> Iterator[Bridge]:
    """The correction equals the stem; with the preset `bleed` it is half of it."""
    with running(FakeModelRepairer({"general": 1.0, "bleed": 0.5})) as bridge:
        yield bridge


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal((channels, samples))).astype(np.float32)


def cuts(total: int, sizes: list[int]) -> Iterator[slice]:
    start = number = 0
    while start < total:
        stop = min(total, start + sizes[number % len(sizes)])
        yield slice(start, stop)
        start, number = stop, number + 1


def stream_through(client: Client, stem: np.ndarray, sizes: list[int], mix: np.ndarray | None = None) -> np.ndarray:
    """The output of an offline stream, aligned and as long as the input."""
    parts = [
        client.process(stem[:, part], None if mix is None else mix[:, part], offline=True)
        for part in cuts(stem.shape[1], sizes)
    ]
    out = np.concatenate([*parts, client.flush()], axis=1)
    assert out.shape[1] == stem.shape[1] + client.latency_samples
    assert not out[:, : client.latency_samples].any()
    return out[:, client.latency_samples :]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_identity_is_exact_with_the_stated_latency(identity: Bridge, block: int) -> None:
    stem = noise(4 * 8192 if block > 16 else 3000)
    with Client(RATE, 2, port=identity.port, max_block=max(block, 16)) as client:
        assert np.array_equal(stream_through(client, stem, [block]), stem)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 60),
    st.sampled_from([22050, 44100, 48000, 96000]),
    st.integers(1, 8),
)
def test_the_identity_is_exact_for_any_blocks_rate_and_channels(
    identity: Bridge, sizes: list[int], rate: int, channels: int
) -> None:
    stem = noise(20000, channels)
    with Client(rate, channels, port=identity.port, max_block=8192) as client:
        assert np.array_equal(stream_through(client, stem, sizes), stem)


@pytest.mark.parametrize("block", [1, 65, 512, 4096])
def test_the_identity_over_udp(identity: Bridge, block: int) -> None:
    stem = noise(20 * block)
    with Wire(identity.port, udp=True) as wire:
        ready = wire.hello(block=block)
        stream, latency = ready.arguments[2], ready.arguments[4]
        out = []
        for number, part in enumerate(cuts(stem.shape[1], [block])):
            reply = wire.ask("/block", "iihiib", stream, number, part.start, block, 1, to_blob(stem[:, part]))
            assert reply.address == "/block"
            assert reply.arguments[:4] == (stream, number, part.start, block)
            assert reply.arguments[7] == latency
            out.append(from_blob(reply.arguments[8], 2, block))
        wire.send("/flush", "ii", 9, stream)
        while (reply := wire.receive()).address == "/block":
            out.append(from_blob(reply.arguments[8], 2, reply.arguments[3]))
        assert reply == Message("/ack", (9, "/stemprover/flush", stream, 0))
        assert np.array_equal(np.concatenate(out, axis=1)[:, latency:], stem)


def test_blocks_too_large_for_a_datagram_are_refused_with_the_limit(identity: Bridge) -> None:
    with Wire(identity.port, udp=True) as wire:
        error = wire.hello(block=8192, channels=8)
        assert error.address == "/error"
        assert error.arguments[:2] == (1, Code.TOO_LARGE)
        assert "2044 frames" in error.arguments[3]


@pytest.mark.parametrize(("rate", "mix_channels"), [(44100, 0), (44100, 2), (48000, 2), (96000, 0)])
def test_with_a_model_a_stream_equals_a_repaired_file(lively_bundle: Path, rate: int, mix_channels: int) -> None:
    repairer = Repairer(bundle=lively_bundle)
    stem, mix = sound(1.2, rate), sound(1.2, rate, seed=3)
    used = mix if mix_channels else None
    wanted = repairer.process(stem, rate, used)

    def make(preset: object, **_: Any) -> Repairer:
        return repairer

    with running(make) as bridge, Client(rate, 2, mix_channels, port=bridge.port) as client:
        found = stream_through(client, stem, [512, 100], used)
        client.set_role("bass")
        as_bass = stream_through(client, stem, [512, 100], used)
    assert np.abs(wanted - stem).max() > 5e-3
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-4)
    assert np.abs(as_bass - wanted).max() > 1e-3
    np.testing.assert_allclose(as_bass, repairer.process(stem, rate, used, role="bass"), rtol=0.0, atol=1e-4)


def test_a_mono_mix_with_a_stereo_stem() -> None:
    with running(FakeModelRepairer({}, mix_gain=1.0)) as bridge, Client(RATE, 2, 1, port=bridge.port) as client:
        stem, mix = noise(9000), noise(9000, 1, seed=2)
        np.testing.assert_allclose(stream_through(client, stem, [512], mix), stem + mix, rtol=0.0, atol=1e-6)


def test_wet_and_bypass_are_smoothed_and_exact_afterwards(doubling: Bridge) -> None:
    stem = np.ones((2, 80000), np.float32)
    with Client(RATE, 2, port=doubling.port) as client:
        out, held = [], {}
        for number, part in enumerate(cuts(stem.shape[1], [500])):
            if number == 60:
                held["off"] = client.set_bypass(True)
            if number == 100:
                held["half"] = client.set_wet(0.5)
                client.set_bypass(False)
            out.append(client.process(stem[:, part], offline=True))
        sent = np.concatenate(out, axis=1)
        latency = client.latency_samples
    assert held == {"off": 60 * 500, "half": 100 * 500}
    assert (sent[:, latency : 60 * 500] == 2.0).all()
    assert (sent[:, 60 * 500 + 882 : 100 * 500] == 1.0).all()
    assert (sent[:, 100 * 500 + 882 :] == 1.5).all()
    assert np.abs(np.diff(sent[:, latency:])).max() <= 1.01 / 882, "a straight line over 20 ms"


def test_a_preset_takes_effect_at_the_stated_position_without_a_click(doubling: Bridge) -> None:
    stem = np.ones((2, 120000), np.float32)
    with Client(RATE, 2, port=doubling.port) as client:
        out, position = [], None
        for number, part in enumerate(cuts(stem.shape[1], [512])):
            if number == 60:
                position = client.select("bleed")
            out.append(client.process(stem[:, part], offline=True))
        sent, latency = np.concatenate(out, axis=1), client.latency_samples
    assert position is not None
    assert 60 * 512 < position < 120 * 512
    assert (sent[:, latency : position - 1] == 2.0).all()
    assert (sent[:, position + 882 + 2048 :] == 1.5).all()
    assert np.abs(np.diff(sent[:, latency:])).max() <= 0.51 / 882


def test_with_a_slow_model_the_audio_stays_dry_without_clicks() -> None:
    t = np.arange(3 * RATE) / RATE
    stem = np.repeat((0.5 * np.sin(2 * np.pi * 100 * t))[None].astype(np.float32), 2, axis=0)
    slow = FakeModelRepairer({"general": 1.0}, pause_s=0.2)  # a chunk is 46 ms long
    with running(slow, threads=1) as bridge, Wire(bridge.port) as wire:
        bridge.call(lambda: bridge.registry.models.__setattr__("cost_per_step", 0.01))
        ready = wire.hello()
        stream, latency = ready.arguments[2], ready.arguments[4]
        out, states, longest = [], [], 0.0
        begun = time.monotonic()
        for number, part in enumerate(cuts(stem.shape[1], [512])):
            count = part.stop - part.start
            asked = time.monotonic()
            reply = wire.ask("/block", "iihiib", stream, number, part.start, count, 0, to_blob(stem[:, part]))
            longest = max(longest, time.monotonic() - asked)
            states.append(reply.arguments[5])
            out.append(from_blob(reply.arguments[8], 2, count))
            time.sleep(max(0.0, begun + part.stop / RATE - time.monotonic()))
        pong = wire.ask("/ping", "id", 4, 1.0)
    sent = np.concatenate(out, axis=1)[:, latency:]
    assert states.count(Status.LATE) > 100
    assert pong.arguments[4] == states.count(Status.LATE)
    assert longest < 0.1, "an answer must never wait for the model"
    ratio = np.abs(sent[:, 1000:]).max() / np.abs(stem).max()
    assert 1.0 <= ratio <= 2.0, "dry or repaired, never silence"
    steps = np.abs(np.diff(stem)).max()
    assert np.abs(np.diff(sent)).max() <= 2 * steps + 0.5 / 220


def test_while_the_model_loads_live_audio_stays_dry_and_offline_audio_waits() -> None:
    stem = np.ones((2, 40000), np.float32)
    with running(FakeModelRepairer({"general": 1.0}, load_s=1.0)) as bridge:
        with Wire(bridge.port) as wire:
            stream, states = wire.hello().arguments[2], []
            for number in range(60):
                reply = wire.ask("/block", "iihiib", stream, number, 512 * number, 512, 0, to_blob(stem[:, :512]))
                states.append(reply.arguments[5])
            assert Status.WARMING_UP in states
            assert bridge.call(lambda: bridge.registry.models.cost_per_step) is None, "the model must still be loading"
        with Client(RATE, 2, port=bridge.port) as client:
            assert (stream_through(client, stem, [512]) == 2.0).all()


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_live_blocks_of_any_rate_are_in_time(rate: int) -> None:
    """A model that needs a quarter of a chunk's duration is in time for every block."""
    stem = noise(int(1.5 * rate))
    with running(FakeModelRepairer({"general": 1.0}, pause_s=0.012)) as bridge, Wire(bridge.port) as wire:
        bridge.call(lambda: bridge.registry.models.get(bridge.registry.general, "standard").result(5))
        stream, states = wire.hello(rate).arguments[2], []
        begun = time.monotonic()
        for number, part in enumerate(cuts(stem.shape[1], [480])):
            count = part.stop - part.start
            reply = wire.ask("/block", "iihiib", stream, number, part.start, count, 0, to_blob(stem[:, part]))
            states.append(reply.arguments[5])
            time.sleep(max(0.0, begun + part.stop / rate - time.monotonic()))
    assert states.count(Status.LATE) <= len(states) // 20, "a few may be late on a busy machine"


def test_a_preset_superseded_by_a_change_of_quality_stays_chosen() -> None:
    with running(FakeModelRepairer({"bleed": 1.0}, load_s=0.3)) as bridge, Wire(bridge.port) as wire:
        number = wire.hello().arguments[2]
        (stream,) = bridge.call(lambda: list(bridge.registry.streams.values()))
        for round_, (preset, quality) in enumerate([("bleed", "best"), ("auto", "draft")]):
            wire.send(f"/stream/{number}/preset", "si", preset, 10 * round_ + 1)
            wire.send(f"/stream/{number}/quality", "si", quality, 10 * round_ + 2)
            answers = {wire.receive().address for _ in range(2)}
            assert answers == {"/error", "/ack"}
            assert (stream.selection.name, stream.selection.quality) == (preset, quality)
        wire.send(f"/stream/{number}/quality", "si", "standard", 99)
        assert wire.receive().address == "/ack"
        assert (stream.selection.name, stream.selection.quality) == ("auto", "standard")
        assert bridge.call(lambda: stream._worker._choice is not None), "auto must be analysing"


def test_lost_blocks_become_silence_and_the_others_keep_their_place(identity: Bridge) -> None:
    stem = noise(80 * 512)
    with Wire(identity.port, udp=True) as wire:
        ready = wire.hello()
        stream, latency = ready.arguments[2], ready.arguments[4]
        out = np.full(stem.shape, np.nan, np.float32)
        for number, part in enumerate(cuts(stem.shape[1], [512])):
            if number % 7 == 3:
                continue
            reply = wire.ask("/block", "iihiib", stream, number, part.start, 512, 1, to_blob(stem[:, part]))
            assert reply.arguments[2] == part.start
            out[:, part] = from_blob(reply.arguments[8], 2, 512)
        pong = wire.ask("/ping", "id", 1, 0.0)
    kept = np.arange(stem.shape[1]) // 512 % 7 != 3
    wanted = np.pad(np.where(kept, stem, 0.0), ((0, 0), (latency, 0)))[:, : stem.shape[1]]
    assert np.array_equal(out[:, kept], wanted[:, kept])
    assert pong.arguments[5] == sum(number % 7 == 3 for number in range(79))


def test_blocks_out_of_order_are_refused(identity: Bridge) -> None:
    block = to_blob(noise(64))

    def ask(sequence: int, position: int, flags: int = 0) -> Message:
        return wire.ask("/block", "iihiib", stream, sequence, position, 64, flags, block)

    with Wire(identity.port) as wire:
        stream = wire.hello().arguments[2]
        assert ask(5, 1000).address == "/block"
        for sequence, position in ((5, 1064), (6, 1000), (6, 10_000_000)):
            error = ask(sequence, position)
            assert (error.address, error.arguments[1]) == ("/error", Code.ORDER)
        assert ask(6, 1064).address == "/block"
        assert ask(1, 0, Flag.DISCONTINUITY).arguments[:3] == (stream, 1, 0)


def test_flush_reset_and_the_last_flag_end_a_stream(doubling: Bridge) -> None:
    stem = noise(30000)
    with Client(RATE, 2, port=doubling.port) as client:
        first = stream_through(client, stem, [512])
        client.process(noise(7000, seed=4), offline=True)
        client.reset()
        assert np.array_equal(stream_through(client, stem, [333]), first)
        assert np.array_equal(first, 2 * stem)
    with Wire(doubling.port) as wire:
        ready = wire.hello(block=8192)
        stream, latency = ready.arguments[2], ready.arguments[4]
        parts = []
        wire.send("/block", "iihiib", stream, 0, 0, 8000, Flag.OFFLINE | Flag.LAST, to_blob(stem[:, :8000]))
        while sum(part.shape[1] for part in parts) < 8000 + latency:
            reply = wire.receive()
            assert reply.address == "/block"
            parts.append(from_blob(reply.arguments[8], 2, reply.arguments[3]))
        assert np.array_equal(np.concatenate(parts, axis=1)[:, latency:], 2 * stem[:, :8000])
        assert reply.arguments[4] & Flag.LAST


def test_a_flush_fails_if_the_bridge_has_gone() -> None:
    with running(FakeModelRepairer({"general": 1.0})) as bridge:
        client = Client(RATE, 2, port=bridge.port)
        client.submit(noise(512), offline=False).result()
    with pytest.raises(BridgeLostError):
        client.flush()
    client.close()


def test_a_refused_flush_does_not_begin(doubling: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = noise(4000)
    with Wire(doubling.port) as wire:
        stream = wire.hello(block=8192).arguments[2]
        monkeypatch.setattr("stemprover.bridge.server.session.MOST_TASKS", 0)
        wire.send("/flush", "ii", 7, stream)
        assert wire.receive().address == "/error"
        monkeypatch.undo()
        wire.send("/block", "iihiib", stream, 0, 0, 4000, Flag.OFFLINE, to_blob(stem))
        assert wire.receive().address == "/block"


def test_non_finite_samples_pass_through_without_affecting_others(lively_bundle: Path) -> None:
    repairer = Repairer(bundle=lively_bundle)
    stem = sound(3.0)
    broken = stem.copy()
    broken[0, 5000], broken[1, 5001], broken[0, 5002] = np.nan, np.inf, 1e30
    with (
        running(lambda preset, **_: repairer) as bridge,
        Client(RATE, 2, port=bridge.port) as client,
    ):
        found = stream_through(client, broken, [512])
    assert np.isnan(found[0, 5000])
    assert found[1, 5001] == np.inf
    others = np.ones(stem.shape[1], bool)
    others[5000:5003] = False
    assert np.isfinite(found[:, others]).all()
    late = slice(5000 + 2 * RATE, None)
    np.testing.assert_allclose(found[:, late], repairer.process(stem, RATE)[:, late], rtol=0.0, atol=1e-4)


def test_more_streams_than_allowed_are_refused() -> None:
    with running(most_streams=1) as bridge, Client(RATE, 2, port=bridge.port) as client:
        with pytest.raises(BridgeError, match="1 streams are open") as caught:
            Client(RATE, 2, port=bridge.port)
        assert caught.value.code is Code.BUSY
        client.close()
        Client(RATE, 2, port=bridge.port).close()


@pytest.mark.parametrize(
    ("rate", "channels", "mix", "block", "message"),
    [
        (7, 2, 0, 512, "sample rate 7"),
        (44100, 9, 0, 512, "use 1 to 8"),
        (44100, 2, 3, 512, "use 0, 1, 2 or 2"),
        (44100, 2, 0, 0, "use 1 to 8192"),
        (44100, 2, 0, 8193, "use 1 to 8192"),
    ],
)
def test_an_invalid_stream_is_refused(
    identity: Bridge, rate: int, channels: int, mix: int, block: int, message: str
) -> None:
    with Wire(identity.port) as wire:
        error = wire.hello(rate, block, channels, mix)
        assert (error.address, error.arguments[1]) == ("/error", Code.ARGUMENTS)
        assert message in error.arguments[3]


@pytest.mark.parametrize(
    ("name", "tags", "values", "code"),
    [
        ("wet", "fi", (1.5, 7), Code.ARGUMENTS),
        ("wet", "si", ("much", 7), Code.ARGUMENTS),
        ("preset", "si", ("nonesuch", 7), Code.PRESET),
        ("preset", "si", ("../../etc", 7), Code.PRESET),
        ("quality", "si", ("splendid", 7), Code.ARGUMENTS),
        ("role", "si", ("kazoo", 7), Code.ARGUMENTS),
        ("blend", "sfi", ("bleed", 9.0, 7), Code.PRESET),
        ("blend", "i", (7,), Code.ARGUMENTS),
        ("colour", "si", ("red", 7), Code.UNKNOWN_ADDRESS),
    ],
)
def test_an_invalid_setting_is_refused_and_the_stream_goes_on(
    doubling: Bridge, name: str, tags: str, values: tuple[Any, ...], code: Code
) -> None:
    with Wire(doubling.port) as wire:
        stream = wire.hello().arguments[2]
        error = wire.ask(f"/stream/{stream}/{name}", tags, *values)
        assert error.address == "/error"
        assert error.arguments[:2] == (7, code)
        reply = wire.ask("/block", "iihiib", stream, 0, 0, 64, 1, to_blob(noise(64)))
        assert reply.address == "/block"


def test_settings_can_come_from_another_socket(doubling: Bridge) -> None:
    """Like tools that discovered the parameters: another socket, and no request number."""
    with Wire(doubling.port) as wire, Wire(doubling.port, udp=True) as other:
        stream = wire.hello().arguments[2]
        assert other.ask(f"/stream/{stream}/wet", "f", 0.25).address == "/ack"
        assert other.ask(f"/stream/{stream}/bypass", "T", True).address == "/ack"
        assert other.ask(f"/stream/{stream}/preset", "s", "bleed").address == "/ack"
        state = doubling.call(lambda: doubling.registry.streams[stream])
        assert (state.wet, state.bypass, state.selection.name) == (0.25, True, "bleed")


def test_a_client_that_knows_only_floats_is_served(doubling: Bridge) -> None:
    with Wire(doubling.port, udp=True) as wire, Wire(doubling.port, udp=True) as faders:
        assert faders.ask("/hello", "fsssffff", 3.0, "", "Pd", "control", 0.0, 0.0, 0.0, 0.0).arguments[0] == 3
        ready = wire.ask("/hello", "fsssfffff", 1.0, "", "Pd", "stream", 44100.0, 512.0, 2.0, 0.0, 1.0)
        stream = ready.arguments[2]
        assert ready.address == "/ready"
        for name in ("bypass", "wet"):
            assert faders.ask(f"/stream/{stream}/{name}", "ff", 1.0, 7.0).arguments[0] == 7
        assert doubling.call(lambda: doubling.registry.streams[stream].bypass)
        reply = wire.ask("/block", "dffffb", stream, 0.0, 64.0, 64.0, 1.0, to_blob(noise(64)))
        assert reply.arguments[:4] == (stream, 0, 64, 64)
        error = faders.ask(f"/stream/{stream}/bypass", "ff", 0.5, 8.0)
        assert error.arguments[:2] == (8, Code.ARGUMENTS)
        assert "argument 1 is 0.5, not a whole number" in error.arguments[3]
        assert wire.ask("/close", "ff", 9.0, float(stream)).address == "/ack"


def chosen(
    bridge: Bridge, client: Client, stem: np.ndarray, mix: np.ndarray, wanted: Callable[[Preset], bool]
) -> Preset:
    """What the only stream is repaired with once that is as wanted. Plays the sound again for up to a minute, since a
    model takes its time to load."""
    ends = time.monotonic() + 60.0
    while True:
        for part in cuts(stem.shape[1], [2048]):
            client.process(stem[:, part], mix[:, part], offline=True)
        preset = bridge.call(lambda: next(iter(bridge.registry.streams.values())).selection.preset)
        if wanted(preset) or time.monotonic() > ends:
            return preset


def test_auto_analyses_the_stream_and_swaps_in_what_it_chooses(lively_bundle: Path) -> None:
    repairer = Repairer(bundle=lively_bundle)
    rest = sound(9.0, seed=8)
    stem = sound(9.0)
    with (
        running(lambda preset, **_: repairer) as bridge,
        Client(RATE, 2, 2, port=bridge.port) as client,
    ):
        client.select("auto")
        preset = chosen(bridge, client, stem + 0.3 * rest, stem + rest, lambda preset: preset.name != "general")
        assert preset.name != "general"
        assert bridge.call(lambda: next(iter(bridge.registry.streams.values())).selection.name) == "auto"


def test_auto_gives_a_separators_stem_its_wiener_filter_though_general_is_loaded(lively_bundle: Path) -> None:
    stem, mix = (
        soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=9 * 44100)[0].T for name in ("separated", "song")
    )
    with (
        running(lambda preset, **_: Repairer(bundle=lively_bundle, separated=preset.separated)) as bridge,
        Client(44100, 2, 2, port=bridge.port) as client,
    ):
        client.select("auto")
        preset = chosen(bridge, client, stem, mix, lambda preset: preset.separated)
        assert (preset.name, preset.separated) == ("general", True)
        general = load_preset("general")
        plain, separated = (
            bridge.call(lambda kind=kind: bridge.registry.models.get(replace(general, separated=kind), "standard"))
            for kind in (False, True)
        )
        assert plain.result(30).blend is None
        assert separated.result(30).blend == SEPARATED_BLEND


def test_a_file_through_a_bridge(doubling: Bridge) -> None:
    stem = noise(100_000)
    for realtime in (False, True):
        chunks = [stem[:, part] for part in cuts(30_000 if realtime else stem.shape[1], [7777])]
        remote = RemoteRepairer(port=doubling.port, realtime=realtime)
        found = np.concatenate(list(remote.process_chunks(iter(chunks), RATE, 2)), axis=1)
        assert found.shape[1] == sum(chunk.shape[1] for chunk in chunks)
        if not realtime:
            assert np.array_equal(found, 2 * stem)


def test_a_value_is_not_taken_for_the_request_that_was_left_out(doubling: Bridge) -> None:
    with Wire(doubling.port) as wire:
        error = wire.ask("/stream/99/bypass", "i", 1)
        assert error.arguments[:3] == (0, Code.NO_STREAM, "/stemprover/stream/99/bypass")
