"""More than two linked channels: their phases and levels relative to each other are kept."""

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
@example(seed=117, pairs=2, level=0.28125)  # one bin is nearly empty, and the pairs add five times its power
def test_phases_and_levels_between_channels_are_kept(seed: int, pairs: int, level: float) -> None:
    before, correction = spectra(seed, pairs), spectra(seed + 1, pairs, level)
    power, wanted = (np.sum(np.abs(one) ** 2, axis=(0, 1)).ravel() for one in (before, correction))
    there, new = wanted < 3.99 * power, wanted > 4.01 * power  # the limit is 4, up to rounding
    assert there.mean() > 0.95
    linked = link(before, correction, doubled=False)
    own = [one.reshape(2 * pairs, -1)[:, new] for one in (linked, correction)]
    assert np.array_equal(*own), "in nearly empty bins each pair keeps its own correction"
    after = before + linked
    flat, was = after.reshape(2 * pairs, -1)[:, there], before.reshape(2 * pairs, -1)[:, there]
    assert np.allclose(flat[1:] * was[0], was[1:] * flat[0], atol=1e-3)


def test_a_correction_common_to_all_channels_is_applied_as_it_is() -> None:
    before = spectra(1, 3)
    factor = np.complex64(-0.3 + 0.2j)
    assert np.allclose(link(before, factor * before, doubled=False), factor * before, atol=1e-6)
    one = spectra(2, 2)
    one[1, 1] = one[1, 0]
    wanted = np.stack([0.5 * one[0], -0.5 * one[1]])
    power = np.square(np.abs(one)).sum(axis=1)
    factor = 0.5 * (power[0] - 0.5 * power[1]) / (power[0] + 0.5 * power[1])  # a doubled channel counts once
    assert np.allclose(link(one, wanted, doubled=True), factor * one, atol=1e-5)


def test_in_empty_bins_each_pair_keeps_its_own_correction() -> None:
    before, correction = spectra(1, 2, 0.01), spectra(2, 2)
    assert np.array_equal(link(before, correction, doubled=False), correction)
    assert not link(np.zeros_like(before), np.zeros_like(before), doubled=False).any()


def scene(seconds: float, seed: int = 0) -> np.ndarray:
    """First-order ambisonics (W, Y, Z, X) of noise from one direction, in bursts."""
    rng = np.random.default_rng(seed)
    length = int(seconds * RATE)
    source = 0.2 * rng.standard_normal(length) * (np.sin(2 * np.pi * 3 * np.arange(length) / RATE) > -0.3)
    gains = np.array([1.0, 0.5, -0.3, 0.8])
    return (gains[:, None] * source).astype(np.float32)


def direction_error(before: np.ndarray, after: np.ndarray) -> float:
    """Power beside the scene's direction relative to the power along it: 0 if the direction is kept."""
    line = np.linalg.svd(before, full_matrices=False)[0][:, :1]
    along = line @ (line.T @ after)
    return float(np.sum((after - along) ** 2) / np.sum(along**2))


def test_an_ambisonic_scene_keeps_its_direction_only_if_linked(lively_bundle: Path) -> None:
    before = scene(1.0)
    linked, apart = (
        Repairer(bundle=lively_bundle, jobs=1, restrained=False, linked=one).process(before, RATE)
        for one in (True, False)
    )
    assert np.abs(linked - before).max() > 1e-3, "the repair must change something"
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
    assert not whole[2:, : 9000 - 2048].any(), "silent channels stay silent"


def test_linking_does_not_affect_stereo(lively_bundle: Path) -> None:
    stem = scene(0.4)[:2]
    a, b = (Repairer(bundle=lively_bundle, jobs=1, linked=one).process(stem, RATE) for one in (True, False))
    assert np.array_equal(a, b)
