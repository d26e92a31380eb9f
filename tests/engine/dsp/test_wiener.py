"""The multichannel Wiener filter: it uses different stereo positions, and is a mask where there is no difference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.latent import BandLayout
from stemprover.engine.dsp.stft import Stft, StftConfig
from stemprover.engine.dsp.wiener import EXPONENT, MEMORY, PRIOR, WienerFilter

LAYOUT = BandLayout()
FRAMES = 300


def spectrum(audio: np.ndarray) -> np.ndarray:
    """Left and right (2, n) to frames (1, 2, F, N)."""
    stft = Stft(StftConfig())
    return stft.analysis(np.asarray(audio, np.float32), stft.start_analysis(2))[0][None]


def panned(seed: int, pan: tuple[float, float], frames: int = FRAMES) -> np.ndarray:
    """White noise panned between left and right."""
    mono = np.random.default_rng(seed).standard_normal(frames * 512)
    return spectrum(np.array(pan)[:, None] * mono)


def diffuse(seed: int, frames: int = FRAMES) -> np.ndarray:
    """Independent white noise in each channel."""
    return spectrum(np.random.default_rng(seed).standard_normal((2, frames * 512)))


def masked(stem: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The stem from the ideal magnitude mask of each channel."""
    mask = np.abs(stem) / (np.abs(stem) + np.abs(rest) + 1e-9)
    return (mask * (stem + rest)).astype(np.complex64)


def filtered(stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """The filter's estimate of the stem."""
    wiener = WienerFilter()
    covariances, _ = wiener.measure(stem, mix - stem, wiener.start(len(stem)))
    return stem + wiener.correction(stem, mix, covariances)


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.square(np.abs(found - true)).sum() / np.square(np.abs(true)).sum())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 0.6), st.floats(0.2, 0.6), st.floats(1e-3, 10.0))
def test_sources_at_different_positions_are_separated_better_than_by_a_mask(
    seed: int, one: float, other: float, level: float
) -> None:
    true = np.float32(level) * panned(seed, (1.0, one))
    rest = np.float32(level) * panned(seed + 1, (other, 1.0))
    stem = masked(true, rest)
    late = slice(50, None)
    before, after = (error(x[..., late], true[..., late]) for x in (stem, filtered(stem, true + rest)))
    assert after < 0.6 * before, "over 2 dB less error"


def test_it_equals_the_textbook_formula() -> None:
    stem, rest = masked(panned(1, (1.0, 0.3)), diffuse(2)), diffuse(3)
    mix = stem + rest
    wiener, n = WienerFilter(), 200
    estimated, _ = wiener.measure(stem, rest, wiener.start(1))
    found = (stem + wiener.correction(stem, mix, estimated))[0]
    start = 0
    for width in LAYOUT.widths[:20]:
        bins = slice(start, start + width)
        start += width
        covariances, powers = [], []
        for source in (stem[0].astype(complex), rest[0].astype(complex)):
            past = source[:, bins, : n + 1]
            r = np.einsum("ifn,jfn->ij", past, past.conj()).real
            known = (n + 1) / (n + 1 + PRIOR)
            covariances.append(known * r / np.trace(r) + (1 - known) * np.eye(2) / 2)
            powers.append((np.square(np.abs(source[:, bins, n])).mean(axis=0)) ** (EXPONENT / 2))
        for f in range(width):
            own, other = (v[f] * r for v, r in zip(powers, covariances, strict=True))
            wanted = own @ np.linalg.inv(own + other) @ mix[0, :, start - width + f, n]
            size = np.abs(mix[0, :, start - width + f, n]).max()
            assert np.abs(found[:, start - width + f, n] - wanted).max() < 0.02 * size, "up to the loading of 0.1%"


def test_sources_at_the_same_position_get_a_softer_mask() -> None:
    true, rest = panned(1, (1.0, 0.5)), panned(2, (1.0, 0.5))
    stem, mix = masked(true, rest), true + rest
    found = filtered(stem, mix)[..., 100:]
    sizes = [np.abs(x[..., 100:]) ** EXPONENT for x in (stem, mix - stem)]
    wanted = sizes[0] / (sizes[0] + sizes[1]) * mix[..., 100:]
    assert error(found, wanted) < 1e-3


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_the_estimates_of_stem_and_residual_sum_to_the_mix(seed: int) -> None:
    stem, rest = masked(panned(seed, (1.0, 0.2)), diffuse(seed + 1)), panned(seed + 2, (0.5, -0.5))
    whole = filtered(stem, stem + rest) + filtered(rest, stem + rest)
    assert error(whole, stem + rest) < 1e-8


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_any_split_gives_the_same_covariances(lengths: list[int]) -> None:
    frames = MEMORY + 150
    stem, rest = masked(panned(1, (1.0, 0.2), frames), diffuse(2, frames)), diffuse(3, frames)
    wiener = WienerFilter()
    whole, _ = wiener.measure(stem, rest, wiener.start(1))
    state, parts = wiener.start(1), []
    for start, stop in pairwise([0, *np.minimum(np.cumsum(lengths), frames), frames]):
        part, state = wiener.measure(stem[..., start:stop], rest[..., start:stop], state)
        parts.append(part)
    assert np.array_equal(np.concatenate(parts, axis=-1), whole)


def test_its_memory_has_exactly_that_many_frames() -> None:
    wiener = WienerFilter()
    before = [panned(seed, (1.0, 0.0), 20) for seed in (1, 2)]
    stem, rest = (panned(seed, (0.3, 1.0), MEMORY + 4) for seed in (3, 4))
    fresh, _ = wiener.measure(stem, rest, wiener.start(1))
    later, _ = wiener.measure(stem, rest, wiener.measure(before[0], before[1], wiener.start(1))[1])
    assert np.array_equal(fresh[..., MEMORY - 1 :], later[..., MEMORY - 1 :])
    assert np.abs(fresh - later)[..., MEMORY - 25].max() > 1e-3


@pytest.mark.parametrize("silent", [(0,), (1,), (0, 1)])
def test_silence_passes_through(silent: tuple[int, ...]) -> None:
    stem, rest = (diffuse(seed, 40) * np.float32(seed not in silent) for seed in (0, 1))
    found = filtered(stem, stem + rest)
    assert np.isfinite(found).all()
    most = 1e-2 * max(1.0, float(np.abs(stem + rest).max()))
    assert np.abs(found - stem).max() < most, "with a single source there is nothing to separate"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30])
def test_non_finite_values_do_not_stay_in_the_memory(wrong: float) -> None:
    stem, rest = masked(panned(1, (1.0, 0.2), 60), diffuse(2, 60)), diffuse(3, 60)
    broken = stem.copy()
    broken[..., 20] = wrong
    wiener = WienerFilter()
    with np.errstate(all="ignore"):
        covariances, _ = wiener.measure(broken, rest, wiener.start(1))
        correction = wiener.correction(broken, broken + rest, covariances)
    assert np.isfinite(covariances).all()
    assert np.isfinite(correction).all()
    without, _ = wiener.measure(np.where(np.arange(60) == 20, 0, stem), rest, wiener.start(1))
    np.testing.assert_allclose(covariances[:, :, :, :, 21:], without[:, :, :, :, 21:], rtol=1e-5)


def test_left_and_right_are_treated_alike() -> None:
    stem, rest = masked(panned(1, (1.0, 0.2)), diffuse(2)), diffuse(3)
    found, swapped = filtered(stem, stem + rest), filtered(stem[:, ::-1], (stem + rest)[:, ::-1])
    assert error(swapped[:, ::-1], found) < 1e-9
    turned = np.array([1.0, -1.0], np.float32)[None, :, None, None]
    assert error(turned * filtered(turned * stem, turned * (stem + rest)), found) < 1e-9


def test_each_pair_is_filtered_by_itself() -> None:
    one, other = masked(panned(1, (1.0, 0.2)), diffuse(2)), masked(panned(3, (0.2, 1.0)), diffuse(4))
    rests = diffuse(5), diffuse(6)
    both = filtered(np.concatenate([one, other]), np.concatenate([one + rests[0], other + rests[1]]))
    assert np.array_equal(both[:1], filtered(one, one + rests[0]))
    assert np.array_equal(both[1:], filtered(other, other + rests[1]))
