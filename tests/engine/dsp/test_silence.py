"""The gate that keeps digital silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemprover.engine.dsp.silence import SilenceGate

RATE = 44100
STRETCH = 64


def whole(sound: np.ndarray, rate: int = RATE) -> np.ndarray:
    return SilenceGate(rate, len(sound)).process(sound, last=True)


def tone(zeros: slice) -> np.ndarray:
    sound = np.ones((1, 2000), np.float32)
    sound[:, zeros] = 0.0
    return sound


def test_a_stretch_of_zeros_is_closed_with_a_ramp_on_either_side() -> None:
    gains = whole(tone(slice(500, 700)))[0]
    assert not gains[500:700].any()
    ramp = (np.arange(STRETCH) + 1) / (STRETCH + 1)
    assert gains[700 : 700 + STRETCH] == pytest.approx(ramp, abs=1e-6)
    assert gains[500 - STRETCH : 500] == pytest.approx(ramp[::-1], abs=1e-6)
    assert np.all(gains[: 500 - STRETCH] == 1.0)
    assert np.all(gains[700 + STRETCH :] == 1.0)


@pytest.mark.parametrize(("length", "closed"), [(1, False), (STRETCH - 1, False), (STRETCH, True)])
def test_single_zeros_of_a_waveform_are_no_silence(length: int, closed: bool) -> None:
    assert bool(whole(tone(slice(500, 500 + length))).min() == 0.0) == closed


def test_channels_are_gated_each_by_itself() -> None:
    sound = np.concatenate([tone(slice(0, 2000)), tone(slice(0, 0))])
    gains = whole(sound)
    assert not gains[0].any()
    assert np.all(gains[1] == 1.0)


@given(
    pieces=st.lists(st.tuples(st.integers(1, 200), st.booleans()), max_size=12),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_any_split_into_blocks_gives_the_same_gains(pieces: list[tuple[int, bool]], cuts: list[int]) -> None:
    parts = [np.full((1, n), float(loud), np.float32) for n, loud in pieces]
    sound = np.concatenate([np.zeros((1, 0), np.float32), *parts], axis=1)
    gate, made, start = SilenceGate(RATE, 1), [], 0
    for cut in cuts:
        made.append(gate.process(sound[:, start : start + cut]))
        start = min(start + cut, sound.shape[1])
        assert sum(part.shape[1] for part in made) >= start - gate.delay_samples
    made.append(gate.process(sound[:, start:], last=True))
    assert np.array_equal(np.concatenate(made, axis=1), whole(sound))
