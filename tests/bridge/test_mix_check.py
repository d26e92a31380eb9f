"""The side-chain of a live stream, through the bridge: proved before it is used, and left out when it stops fitting."""

from __future__ import annotations

from typing import Any

import numpy as np
import soundfile
from bridges import running
from fakes import FakeModelRepairer
from paths import DEMO
from stemprover.bridge.client.client import Client
from stemprover.bridge.server.registry import stream_status

RATE = 44100
TRUTH, MIX = (
    soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=9 * RATE)[0].T for name in ("truth", "song")
)


def played(client: Client, stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
    parts = [
        client.process(stem[:, start : start + 2048], mix[:, start : start + 2048], offline=True)
        for start in range(0, stem.shape[1], 2048)
    ]
    return np.concatenate(parts, axis=1)


def test_the_mix_is_used_once_it_is_proved_and_left_out_when_it_stops_fitting() -> None:
    messages: list[tuple[str, tuple[Any, ...]]] = []
    # The "repair" adds the mix.
    with (
        running(FakeModelRepairer({"general": 0.0}, mix_gain=1.0), check_mix=True) as bridge,
        Client(RATE, 2, 2, port=bridge.port) as client,
    ):
        client._client.on_message = lambda path, arguments: messages.append((path, arguments))
        late = client.latency_samples
        out = played(client, TRUTH, MIX)
        np.testing.assert_array_equal(out[:, late : late + RATE // 2], TRUTH[:, : RATE // 2])
        at = slice(out.shape[1] - RATE - late, out.shape[1] - late)
        np.testing.assert_allclose(out[:, -RATE:], (TRUTH + MIX)[:, at], atol=1e-4)
        stream = bridge.call(lambda: next(iter(bridge.registry.streams.values())))
        assert bridge.call(lambda: stream_status(stream))["side_chain"] == "side-chain: in use"
        out = played(client, TRUTH[:, : 5 * RATE], (MIX - TRUTH)[:, : 5 * RATE])
        at = slice(out.shape[1] - RATE - late, out.shape[1] - late)
        np.testing.assert_allclose(out[:, -RATE:], TRUTH[:, at], atol=1e-4)
    # The first message, 0 for a mix that is not proved yet, may come before the test listens.
    told = [arguments[1:] for path, arguments in messages if path == "/mix" and arguments[1]]
    assert [state for state, _ in told[:2]] == [1, 2]
    assert told[1][1] == "side-chain: not this song, so it is left out"


def test_a_client_may_vouch_for_its_mix() -> None:
    with (
        running(FakeModelRepairer({"general": 0.0}, mix_gain=1.0), check_mix=True) as bridge,
        Client(RATE, 2, 2, port=bridge.port) as client,
    ):
        client.set_check_mix(False)
        other = (MIX - TRUTH)[:, :RATE]
        out = played(client, TRUTH[:, :RATE], other)
        late = client.latency_samples
        np.testing.assert_allclose(out[:, late:], (TRUTH[:, :RATE] + other)[:, : RATE - late], atol=1e-4)
