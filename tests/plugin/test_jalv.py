"""The LV2 in jalv, in real time, under jackd's dummy driver."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bridges import running
from fakes import FakeModelRepairer
from hosts import needs
from stemprover.benchmarks.jack import Jack, jack
from stemprover.bridge.contract import latency_bound
from stemprover.engine.repair import Repairer

RATE = 48000
LATENCY = latency_bound(RATE) + 4096


@pytest.fixture(autouse=True)
def hosts() -> None:
    needs(bool(shutil.which("jackd") and shutil.which("jalv") and shutil.which("cc")), "jackd, jalv or a C compiler")


def tones(seconds: float, *frequencies: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    return np.stack([0.2 * np.sin(2 * np.pi * f * time_s) for f in frequencies]).astype(np.float32)


def between(host: Jack, stem: np.ndarray, song: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray, int]:
    """What comes back in its place, whether each sample is dry, wet or on its way in between, and the latency that JACK
    is told of. Up to six times: on a busy machine JACK leaves out whole periods of a client, which moves all that
    follows."""
    for _ in range(6):
        out, reported, left_out = host.play(np.concatenate([stem, song]), 60)
        # The probe hears itself through the host, a cycle that JACK breaks by one period.
        there = out[:, LATENCY + period :]
        dry = stem[:, : there.shape[1]]
        wet = (2 * stem + 0.5 * song)[:, : there.shape[1]]
        inside = (there >= np.minimum(dry, wet) - 1e-3) & (there <= np.maximum(dry, wet) + 1e-3)
        if inside.all() and not left_out:
            break
    assert not out[:, : LATENCY + period].any()
    return there, inside, reported


@pytest.mark.parametrize("period", [64, 256, 512])
def test_the_round_trip_is_the_reported_latency_plus_the_hosts_own(lv2: Path, tmp_path: Path, period: int) -> None:
    stem, song = tones(3.0, 440.0, 1250.0), tones(3.0, 700.0, 330.0)
    model = FakeModelRepairer({"general": 1.0}, mix_gain=0.5)
    with running(model) as bridge, jack(tmp_path, lv2, bridge.port, period) as host:
        there, inside, reported = between(host, stem, song, period)
    assert reported == LATENCY
    assert inside.all(), "repaired, with the side-chain, or where it was late dry: always in its place"
    assert (np.abs(there - (2 * stem + 0.5 * song)[:, : there.shape[1]]) < 1e-3).mean() > 0.5, "and mostly repaired"


def test_without_a_bridge_it_is_the_sound_as_late(lv2: Path, tmp_path: Path) -> None:
    stem = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32)
    with jack(tmp_path, lv2, 9, 256) as host:
        for _ in range(6):  # as above
            out, _, _ = host.play(stem, 60)
            if np.array_equal(out[:, LATENCY + 256 :], stem[:, : -LATENCY - 256]):
                break
    np.testing.assert_array_equal(out[:, LATENCY + 256 :], stem[:, : -LATENCY - 256])


def test_the_real_model_in_real_time(lv2: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stem = tones(8.0, 440.0, 1250.0) + 0.02 * rng.standard_normal((2, 8 * RATE)).astype(np.float32)
    with running(Repairer) as bridge, jack(tmp_path, lv2, bridge.port, 256) as host:
        out, _, _ = host.play(np.concatenate([stem, stem]), 60)
        (counters,) = bridge.call(lambda: [stream.counters for stream in bridge.hub.streams.values()])
    # The song is the stem itself: what little is wrong with it is no reason to make it louder or softer.
    there = out[:, LATENCY + 256 :]
    np.testing.assert_allclose(np.std(there), np.std(stem), rtol=0.1)
    assert counters.late < counters.blocks / 2
