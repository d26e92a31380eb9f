"""The LV2 in jalv, in real time, under jackd's dummy driver."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bridges import running
from fakes import FakeModelRepairer
from hosts import jack, needs
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


@pytest.mark.parametrize("period", [64, 256, 512])
def test_the_round_trip_is_the_reported_latency_plus_the_hosts_own(lv2: Path, tmp_path: Path, period: int) -> None:
    stem, song = tones(3.0, 440.0, 1250.0), tones(3.0, 700.0, 330.0)
    with running(FakeModelRepairer({"general": 1.0}, mix_gain=0.5)) as bridge:
        with jack(tmp_path, lv2, bridge.port, period) as host:
            out, reported = host.play(np.concatenate([stem, song]), 60)
    assert reported == LATENCY
    # The probe hears itself through the host, a cycle that JACK breaks by one period.
    there = out[:, LATENCY + period :]
    wanted = (2 * stem + 0.5 * song)[:, : there.shape[1]]
    assert not out[:, : LATENCY + period].any()
    np.testing.assert_allclose(there[:, 2400:], wanted[:, 2400:], atol=1e-3)  # repaired, with the side-chain, never dry
    assert not (tmp_path / "config" / "stemprover" / "plugin.log").exists(), "nothing was late"


def test_without_a_bridge_it_is_the_sound_as_late(lv2: Path, tmp_path: Path) -> None:
    stem = np.random.default_rng(0).standard_normal((2, 2 * RATE)).astype(np.float32)
    with jack(tmp_path, lv2, 9, 256) as host:
        out, _ = host.play(stem, 60)
    np.testing.assert_array_equal(out[:, LATENCY + 256 :], stem[:, : -LATENCY - 256])


def test_the_real_model_at_draft_keeps_up(lv2: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stem = tones(12.0, 440.0, 1250.0) + 0.02 * rng.standard_normal((2, 12 * RATE)).astype(np.float32)
    # A song that is quieter at first, while the model loads and is timed.
    stem[:, : 5 * RATE] *= 0.1
    with running(Repairer) as bridge:
        with jack(tmp_path, lv2, bridge.port, 256) as host:
            host.play(stem[:, : 3 * RATE], 60)
            (stream,) = bridge.call(lambda: list(bridge.hub.streams.values()))
            bridge.run(stream.set_quality("draft"))
            before = stream.counters.late
            out, _ = host.play(np.concatenate([stem, stem]), 60)
            after = stream.counters.late
    np.testing.assert_allclose(np.abs(out).max(), np.abs(stem).max(), rtol=0.5)
    assert after == before
