"""Mix consistency: stems that sum to their mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import sound
from stemprover.engine.dsp.consistency import MixConsistency
from stemprover.engine.errors import OptionError
from stemprover.engine.metrics.basic import si_sdr

RATE = 44100


def whole(stems: np.ndarray, mix: np.ndarray, severities: list[float], cuts: list[int] | None = None) -> np.ndarray:
    """The stems with their additions, streamed in blocks."""
    stream, parts, start = MixConsistency(severities, mix.shape[0]), [], 0
    for cut in [*(cuts or []), mix.shape[1]]:
        parts.append(stream.process(stems[..., start:cut], mix[:, start:cut]))
        start = cut
    parts.append(stream.finish())
    return stems + np.concatenate(parts, axis=-1)


def separated(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(true stems, faulty stems, mix): each stem has errors of its own, `noise` times as loud as the stem."""
    truth = np.stack([sound(1.0, RATE, seed=seed), 0.5 * sound(1.0, RATE, seed=seed + 7)])
    errors = np.stack([sound(1.0, RATE, seed=seed + 20), 0.5 * sound(1.0, RATE, seed=seed + 30)])
    return truth, (truth + noise * errors).astype(np.float32), truth.sum(axis=0)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(2, 4), st.integers(1, 3), st.integers(1, 9000), st.lists(st.integers(0, 9000), max_size=4),
    st.integers(0, 99),
)  # fmt: skip
def test_stems_sum_to_the_mix_for_any_split_into_blocks(
    stems: int, channels: int, length: int, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((stems, channels, length)).astype(np.float32)
    mix = rng.standard_normal((channels, length)).astype(np.float32)
    severities = [float(s) for s in rng.random(stems)]
    out = whole(parts, mix, severities, sorted(min(cut, length) for cut in cuts))
    assert out.shape == parts.shape
    np.testing.assert_allclose(out.sum(axis=0), mix, rtol=0.0, atol=2e-5)
    np.testing.assert_allclose(out, whole(parts, mix, severities), rtol=0.0, atol=1e-6)


def test_a_complete_correct_set_is_left_unchanged() -> None:
    truth, _, mix = separated(0.0)
    assert np.abs(whole(truth, mix, [0.0, 1.0]) - truth).max() < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_stems_get_closer_to_the_truth(seed: int) -> None:
    truth, found, mix = separated(0.15, seed)
    out = whole(found, mix, [0.3, 0.3])
    for before, after, true in zip(found, out, truth, strict=True):
        assert si_sdr(after, true) > si_sdr(before, true)


def test_the_difference_goes_to_the_faulty_stem() -> None:
    truth, _, mix = separated(0.0)
    found = np.stack([truth[0], truth[0]])  # equally loud everywhere
    added = whole(found, mix, [0.0, 1.0]) - found
    energy = (added**2).sum(axis=(1, 2))
    assert energy[1] > 10 * energy[0]


def test_a_silent_stem_stays_silent() -> None:
    truth, _, _ = separated(0.0)
    quiet = np.stack([truth[0], np.zeros_like(truth[0])])
    out = whole(quiet, truth[0] + 0.3 * truth[0], [0.2, 0.2])
    assert np.abs(out[1]).max() < 1e-3 * np.abs(out[0]).max()


@pytest.mark.parametrize("severities", [[], [0.5], [0.5, 1.5], [0.1, float("nan")]])
def test_invalid_severities_are_an_error(severities: list[float]) -> None:
    with pytest.raises(OptionError):
        MixConsistency(severities, 2)
