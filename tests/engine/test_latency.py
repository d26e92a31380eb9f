"""Latency: one module computes it, and no stream exceeds what clients rely on."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from stemprover.engine.latency import BridgeLatency, ModelTiming, latency_bound, reserve_samples, stream_latency

COMMON = [8000, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000, 384000]
TIMING = ModelTiming(hop=512, window=2048, lookahead=16 * 512)


def test_at_the_models_rate_the_latency_is_window_look_ahead_and_chunk() -> None:
    assert TIMING.delay_samples == 16 * 512 + 2048 - 512
    assert stream_latency(TIMING, 44100, 4) == TIMING.delay_samples + 4 * 512 - 1


def test_the_bridge_adds_one_chunk_of_processing_time_and_a_reserve() -> None:
    found = BridgeLatency.of(TIMING, 44100, 4)
    assert found.total == stream_latency(TIMING, 44100, 4) + 4 * 512 + reserve_samples(44100)
    assert (found.window, found.lookahead, found.chunk) == (1536, 16 * 512, 4 * 512)
    assert found.total == found.window + found.lookahead + found.chunk + found.adaptation


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(COMMON) | st.integers(8000, 192000))
@example(10809)
@example(176401)
@example(177150)
def test_no_stream_exceeds_the_bound(rate: int) -> None:
    found = BridgeLatency.of(TIMING, rate, 4).total
    assert found <= latency_bound(rate)
    assert rate < 32000 or latency_bound(rate) < 1.1 * found, "the bound should be tight"
