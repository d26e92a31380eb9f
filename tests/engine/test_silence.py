"""The mask that keeps digital silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemprover.engine.mixer import SilenceMask

RATE = 44100
STRETCH = 64


def whole(audio: np.ndarray, rate: int = RATE) -> np.ndarray:
    mask = SilenceMask(rate, len(audio))
    mask.push(audio)
    mask.end()
    return mask.apply(np.ones_like(audio))


def tone(zeros: slice) -> np.ndarray:
    audio = np.ones((1, 2000), np.float32)
    audio[:, zeros] = 0.0
    return audio


def test_a_stretch_of_zeros_is_masked_with_a_ramp_on_either_side() -> None:
    gains = whole(tone(slice(500, 700)))[0]
    assert not gains[500:700].any()
    ramp = (np.arange(STRETCH) + 1) / (STRETCH + 1)
    assert gains[700 : 700 + STRETCH] == pytest.approx(ramp, abs=1e-6)
    assert gains[500 - STRETCH : 500] == pytest.approx(ramp[::-1], abs=1e-6)
    assert np.all(gains[: 500 - STRETCH] == 1.0)
    assert np.all(gains[700 + STRETCH :] == 1.0)


@pytest.mark.parametrize(("length", "masked"), [(1, False), (STRETCH - 1, False), (STRETCH, True)])
def test_short_runs_of_zeros_are_not_silence(length: int, masked: bool) -> None:
    assert bool(whole(tone(slice(500, 500 + length))).min() == 0.0) == masked


def test_each_channel_has_its_own_mask() -> None:
    audio = np.concatenate([tone(slice(0, 2000)), tone(slice(0, 0))])
    gains = whole(audio)
    assert not gains[0].any()
    assert np.all(gains[1] == 1.0)


@given(
    runs=st.lists(st.tuples(st.integers(1, 200), st.booleans()), max_size=12),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_any_split_into_blocks_gives_the_same_gains(runs: list[tuple[int, bool]], cuts: list[int]) -> None:
    parts = [np.full((1, n), float(loud), np.float32) for n, loud in runs]
    audio = np.concatenate([np.zeros((1, 0), np.float32), *parts], axis=1)
    mask, made, start = SilenceMask(RATE, 1), [], 0
    for cut in cuts:
        mask.push(audio[:, start : start + cut])
        start = min(start + cut, audio.shape[1])
        decided = max(0, start - mask.delay_samples) - sum(part.shape[1] for part in made)
        made.append(mask.apply(np.ones((1, decided), np.float32)))
    mask.push(audio[:, start:])
    mask.end()
    made.append(mask.apply(np.ones((1, audio.shape[1] - sum(part.shape[1] for part in made)), np.float32)))
    assert np.array_equal(np.concatenate(made, axis=1), whole(audio))
