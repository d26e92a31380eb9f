"""The fault factory: every mechanism on every kind of sound, and what the draws are like as a whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.train.faults.factory import FAMILIES, HIGHEST_DB, LOWEST_DB, MIDDLE_DB, damage, known, unknown
from stemprover.engine.train.faults.grid import Grid, filtered, smoothed
from stemprover.engine.train.faults.registry import MECHANISMS, Mechanism

LENGTH = int(1.2 * MODEL_RATE)
TIME = np.arange(LENGTH) / MODEL_RATE


def sung(pan: float = 0.2) -> np.ndarray:
    """A voice-like stem (2, T): partials with a moving level, and pauses."""
    pitch = 220 * 2 ** (0.02 * np.sin(2 * np.pi * 5 * TIME))
    tone = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / MODEL_RATE) / k for k in range(1, 30))
    mono = 0.1 * tone * np.clip(3 * np.sin(2 * np.pi * 1.3 * TIME), 0, 1)
    return np.stack([(1 + pan) * mono, (1 - pan) * mono]).astype(np.float32)


def band(seed: int = 0) -> np.ndarray:
    """The rest (2, T): hits of noise and a bass."""
    rng = np.random.default_rng(seed)
    hits = rng.standard_normal((2, LENGTH)) * np.exp(-20 * (TIME % 0.25))
    return (0.15 * hits + 0.1 * np.sin(2 * np.pi * 80 * TIME)).astype(np.float32)


STEM, REST = sung(), band()
EACH = pytest.mark.parametrize("one", MECHANISMS.values(), ids=lambda m: m.name)


@EACH
@pytest.mark.parametrize("channels", [1, 2])
def test_every_mechanism_changes_a_stem_and_repeats_itself(one: Mechanism, channels: int) -> None:
    if one.together and channels == 1:
        return
    stem, rest = STEM[:channels], REST[:channels]
    kept = stem.copy(), rest.copy()
    changed = 0
    for seed in range(6):
        out, again = (one.damage(stem, rest, np.random.default_rng(seed)) for _ in range(2))
        assert out.shape == stem.shape
        assert np.isfinite(out).all()
        np.testing.assert_array_equal(out, again)
        changed += bool(np.abs(out - stem).max() > 1e-4)
        assert np.abs(out).max() < 20 * np.abs(stem).max()
    assert changed, "it does something"
    np.testing.assert_array_equal(stem, kept[0])
    np.testing.assert_array_equal(rest, kept[1])


@EACH
def test_silence_and_a_stem_alone_do_no_harm(one: Mechanism) -> None:
    nothing = np.zeros_like(STEM)
    for stem, rest in ((nothing, REST), (STEM, nothing)):
        out = one.damage(stem, rest, np.random.default_rng(1))
        assert np.isfinite(out).all()


def test_a_quarter_of_each_family_is_held_out() -> None:
    total, held = (Counter(m.family for m in found) for found in (MECHANISMS.values(), unknown()))
    for family in FAMILIES:
        assert 0.25 <= held[family] / total[family] <= 0.5, family
    assert not {m.name for m in known()} & {m.name for m in unknown()}


def test_the_faults_of_many_draws_are_spread_over_35_db() -> None:
    rng = np.random.default_rng(0)
    found = [damage(STEM, REST, rng, known(), most=3) for _ in range(80)]
    levels = np.array([one.si_sdr_db for one in found])
    assert (levels > LOWEST_DB - 1.0).all()
    assert 0.3 < np.mean(levels > MIDDLE_DB) < 0.75
    assert np.mean(levels < HIGHEST_DB + 1.0) > 0.85
    assert {MECHANISMS[name].family for one in found for name in one.mechanisms} == set(FAMILIES)
    assert all(1 <= len(one.mechanisms) <= 3 for one in found)


def test_a_silent_stem_stays_silent() -> None:
    nothing = np.zeros_like(STEM)
    found = damage(nothing, REST, np.random.default_rng(0), known())
    assert (found.mechanisms, found.audio.any()) == ((), False)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), length=st.integers(600, 40_000))
def test_a_grid_gives_back_what_it_was_given(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((2, length)).astype(np.float32)
    grid = Grid.draw(rng)
    np.testing.assert_allclose(grid.inverse(grid.forward(audio), length), audio, atol=2e-3)


def test_a_filter_has_the_gain_that_it_is_given() -> None:
    tone = np.sin(2 * np.pi * 1000 * TIME)[None].astype(np.float32)
    out = filtered(tone, np.array([0.0, -20.0, -20.0]), np.array([500.0, 900.0, 2000.0]))
    middle = slice(8192, -8192)
    assert np.std(out[:, middle]) / np.std(tone[:, middle]) == pytest.approx(0.1, rel=0.02)


def test_a_moving_average_keeps_the_mean() -> None:
    values = np.random.default_rng(0).random((3, 40, 50)).astype(np.float32)
    out = smoothed(values, 5, 7)
    assert out.shape == values.shape
    assert out.mean() == pytest.approx(values.mean(), rel=0.01)
    assert out.std() < 0.4 * values.std()
