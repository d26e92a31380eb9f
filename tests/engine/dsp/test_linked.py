"""More than two channels: what is between them stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.linked import link
from stemprover.engine.repair import Repairer

RATE = 44100


def spectra(seed: int, pairs: int, level: float = 1.0) -> np.ndarray:
    parts = np.random.default_rng(seed).normal(0.0, level, (2, pairs, 2, 12, 9))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), pairs=st.integers(2, 5), level=st.floats(1e-4, 0.3))
@example(seed=117, pairs=2, level=0.28125)  # in one bin next to nothing was, and the pairs bring five times its power
def test_phases_and_levels_between_channels_stay(seed: int, pairs: int, level: float) -> None:
    before, change = spectra(seed, pairs), spectra(seed + 1, pairs, level)
    power, wanted = (np.sum(np.abs(one) ** 2, axis=(0, 1)).ravel() for one in (before, change))
    there, new = wanted < 3.99 * power, wanted > 4.01 * power  # at 4 they part, give or take a rounding
    assert there.mean() > 0.95
    linked = link(before, change, doubled=False)
    own = [one.reshape(2 * pairs, -1)[:, new] for one in (linked, change)]
    assert np.array_equal(*own), "what is brought back where next to nothing was is each pair's own"
    after = before + linked
    flat, was = after.reshape(2 * pairs, -1)[:, there], before.reshape(2 * pairs, -1)[:, there]
    assert np.allclose(flat[1:] * was[0], was[1:] * flat[0], atol=1e-3)


def test_what_all_channels_want_alike_is_done() -> None:
    before = spectra(1, 3)
    factor = np.complex64(-0.3 + 0.2j)
    assert np.allclose(link(before, factor * before, doubled=False), factor * before, atol=1e-6)
    one = spectra(2, 2)
    one[1, 1] = one[1, 0]
    wanted = np.stack([0.5 * one[0], -0.5 * one[1]])
    power = np.square(np.abs(one)).sum(axis=1)
    share = 0.5 * (power[0] - 0.5 * power[1]) / (power[0] + 0.5 * power[1])  # a doubled channel counts once
    assert np.allclose(link(one, wanted, doubled=True), share * one, atol=1e-5)


def test_what_is_brought_back_out_of_nothing_is_each_pairs_own() -> None:
    before, change = spectra(1, 2, 0.01), spectra(2, 2)
    assert np.array_equal(link(before, change, doubled=False), change)
    assert not link(np.zeros_like(before), np.zeros_like(before), doubled=False).any()


def scene(seconds: float, seed: int = 0) -> np.ndarray:
    """First-order ambisonics (W, Y, Z, X) of noise from one direction, in bursts."""
    rng = np.random.default_rng(seed)
    length = int(seconds * RATE)
    source = 0.2 * rng.standard_normal(length) * (np.sin(2 * np.pi * 3 * np.arange(length) / RATE) > -0.3)
    gains = np.array([1.0, 0.5, -0.3, 0.8])
    return (gains[:, None] * source).astype(np.float32)


def direction_error(before: np.ndarray, after: np.ndarray) -> float:
    """Power of what is no longer on the scene's line, over that of what is: zero where the direction stays."""
    line = np.linalg.svd(before, full_matrices=False)[0][:, :1]
    along = line @ (line.T @ after)
    return float(np.sum((after - along) ** 2) / np.sum(along**2))


def test_an_ambisonic_scene_keeps_its_direction_where_pairs_by_themselves_do_not(lively_bundle: Path) -> None:
    before = scene(1.0)
    linked, apart = (
        Repairer(bundle=lively_bundle, jobs=1, gated=False, linked=one).process(before, RATE) for one in (True, False)
    )
    assert np.abs(linked - before).max() > 1e-3, "it is changed"
    assert direction_error(before, linked) < 1e-4
    assert direction_error(before, apart) > 10 * direction_error(before, linked)


@pytest.mark.parametrize("channels", [3, 4, 6])
def test_linked_channels_streamed_equal_the_whole(lively_bundle: Path, channels: int) -> None:
    repairer = Repairer(bundle=lively_bundle, jobs=1)
    rng = np.random.default_rng(channels)
    stem = (0.1 * rng.standard_normal((channels, 20_000))).astype(np.float32)
    stem[2:, :9000] = 0.0
    whole = repairer.process(stem, RATE)
    stream = repairer.stream(RATE, channels)
    parts = [stream.process(stem[:, at : at + 700]) for at in range(0, stem.shape[1], 700)]
    out = np.concatenate([*parts, stream.flush()], axis=1)
    late = stream.latency_samples
    assert np.abs(out[:, late : late + stem.shape[1]] - whole).max() <= 1e-5
    assert not whole[2:, : 9000 - 2048].any(), "what was silent stays silent"


def test_a_stereo_pair_does_not_care(lively_bundle: Path) -> None:
    stem = scene(0.4)[:2]
    a, b = (Repairer(bundle=lively_bundle, jobs=1, linked=one).process(stem, RATE) for one in (True, False))
    assert np.array_equal(a, b)
