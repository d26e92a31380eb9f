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


def undisturbed(host: Jack, sound: np.ndarray) -> tuple[np.ndarray, int]:
    """What comes back, and the latency that JACK is told; once more where JACK itself left out a period on the way."""
    for _ in range(6):
        out, latency, left_out = host.play(sound, 60)
        if not left_out:
            break
    return out, latency


@pytest.mark.parametrize("period", [64, 256, 512])
def test_the_round_trip_is_the_reported_latency_plus_the_hosts_own(lv2: Path, tmp_path: Path, period: int) -> None:
    stem, song = tones(3.0, 440.0, 1250.0), tones(3.0, 700.0, 330.0)
    model = FakeModelRepairer({"general": 1.0}, mix_gain=0.5)
    with running(model) as bridge, jack(tmp_path, lv2, bridge.port, period) as host:
        out, reported = undisturbed(host, np.concatenate([stem, song]))
    assert reported == LATENCY
    # The probe hears itself through the host, a cycle that JACK breaks by one period.
    assert not out[:, : LATENCY + period].any()
    there = out[:, LATENCY + period :]
    dry = stem[:, : there.shape[1]]
    wet = (2 * stem + 0.5 * song)[:, : there.shape[1]]
    # Each sample is in its place: repaired, with the side-chain, or on a busy machine dry, or on its way in between.
    outside = (there < np.minimum(dry, wet) - 1e-3) | (there > np.maximum(dry, wet) + 1e-3)
    assert not outside.any(), np.flatnonzero(outside.any(axis=0))[[0, -1]]
    assert (np.abs(there - wet) < 1e-3).mean() > 0.5


def test_without_a_bridge_it_is_the_sound_as_late(lv2: Path, tmp_path: Path) -> None:
    stem = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32)
    with jack(tmp_path, lv2, 9, 256) as host:
        out, _ = undisturbed(host, stem)
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
