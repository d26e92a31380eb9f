"""What stems leave of their mix, and the gains that restore it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.mix.null import FRAME, Cells, NullMeter

RATE, SECONDS = 22050, 4


def stems(count: int, seed: int = 0) -> np.ndarray:
    """Independent stereo stems (S, 2, n)."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((count, 2, RATE * SECONDS))).astype(np.float32)


def cells_of(signals: np.ndarray, mix: np.ndarray, block: int = 16 * FRAME) -> Cells:
    meter = NullMeter(RATE)
    whole = np.concatenate([signals, mix[None]])
    for start in range(0, whole.shape[-1], block):
        meter.add(whole[..., start : start + block])
    return meter.finish()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0.25, 0.5, 0.8, 1.0, 1.12, 2.0]), min_size=2, max_size=5), st.integers(0, 99))
def test_the_levels_that_a_separator_changed_are_found(gains: list[float], seed: int) -> None:
    true = stems(len(gains), seed)
    written = true / np.array(gains, np.float32)[:, None, None]
    cells = cells_of(written, true.sum(axis=0))
    found = cells.clear_gains()
    np.testing.assert_allclose(found, gains, rtol=0.005)
    assert all(one == 1.0 for one, gain in zip(found, gains, strict=True) if gain == 1.0)
    assert cells.null(found).db < -60


@settings(max_examples=20, deadline=None)
@given(st.floats(0.02, 0.6), st.integers(2, 5), st.integers(0, 99), st.booleans())
def test_bleed_bends_no_level(amount: float, count: int, seed: int, all_bleed: bool) -> None:
    true = stems(count, seed)
    mix = true.sum(axis=0)
    found = true.copy()
    found[slice(None) if all_bleed else slice(1)] += amount * (mix - true)[slice(None) if all_bleed else slice(1)]
    assert (cells_of(found, mix).clear_gains() == 1.0).all()


def test_a_missing_stem_and_a_silent_one_bend_no_level() -> None:
    true = stems(4)
    assert (cells_of(true[:3], true.sum(axis=0)).clear_gains() == 1.0).all()
    true[1] = 0.0
    assert (cells_of(true, true.sum(axis=0)).clear_gains() == 1.0).all()


def test_the_place_of_what_is_missing_is_named() -> None:
    true = stems(2)
    time_s = np.arange(true.shape[-1]) / RATE
    true[1] = 0.1 * np.sin(2 * np.pi * 1000 * time_s) * ((time_s > 1) & (time_s < 2))
    meter = NullMeter(RATE)
    for start in range(0, true.shape[-1], FRAME):
        part = true[..., start : start + FRAME]
        meter.add(np.stack([part[0], part.sum(axis=0)]))
    null = meter.finish().null(np.ones(1))
    assert null.is_missing
    assert null.db == pytest.approx(10 * np.log10((true[1] ** 2).sum() / (true.sum(axis=0) ** 2).sum()), abs=0.5)
    assert null.hz == (600, 1200)
    assert null.seconds == pytest.approx((1.0, 2.0), abs=0.3)
    too_much = cells_of(true, true[0]).null(np.ones(2))
    assert not too_much.is_missing


def test_the_better_version_of_a_stem_is_chosen() -> None:
    true = stems(2)
    for version in (-true[1], np.roll(true[1], 1, axis=-1), true[1][::-1]):
        cells = cells_of(np.stack([true[0], version, true[1]]), true.sum(axis=0))
        assert cells.is_better([0, 1], 1, 2)
        assert not cells.is_better([0, 2], 1, 1)
