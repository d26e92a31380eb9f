"""What a stream promises before it is there."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from stemprover.engine.latency import Latency, latency_bound
from stemprover.engine.live import ChangeStream

COMMON = [8000, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000, 384000]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(COMMON) | st.integers(8000, 192000))
@example(10809)
@example(176401)
@example(177150)
def test_no_streams_latency_passes_the_bound(rate: int) -> None:
    stft, lookahead = 2048, 16 * 512
    changes = ChangeStream(512, lookahead + stft - 512, rate, 1, False, 4)
    found = Latency.of(changes, stft - 512, lookahead).total
    assert found <= latency_bound(rate)
    assert rate < 32000 or latency_bound(rate) < 1.1 * found, "and it is not much more"
