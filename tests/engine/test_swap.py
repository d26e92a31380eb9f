"""Swapping the model of a running stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import sound
from stemprover.engine.errors import OptionError
from stemprover.engine.latency import ModelTiming
from stemprover.engine.live import FADE_S
from stemprover.engine.repair import Repairer

RATE = 44100


def run(repairer: Repairer, swaps: dict[int, object], stem: np.ndarray, mix: np.ndarray, block: int) -> np.ndarray:
    """The stream's output without its latency. swaps: block number to the model to swap in before it."""
    stream = repairer.stream(RATE, 2, has_mix=True)
    out = []
    for number, start in enumerate(range(0, stem.shape[1], block)):
        if number in swaps:
            stream.swap(swaps[number])  # type: ignore[arg-type]
        out.append(stream.process(stem[:, start : start + block], mix[:, start : start + block]))
    out.append(stream.flush())
    return np.concatenate(out, axis=1)[:, stream.latency_samples :]


@pytest.fixture(scope="module")
def repairer(lively_bundle: Path) -> Repairer:
    return Repairer(bundle=lively_bundle)


@pytest.fixture(scope="module")
def sounds() -> tuple[np.ndarray, np.ndarray]:
    return sound(6.0), sound(6.0, seed=5)


def test_swapping_in_the_same_model_changes_nothing(repairer: Repairer, sounds: tuple[np.ndarray, np.ndarray]) -> None:
    alone = run(repairer, {}, *sounds, 1024)
    swapped = run(repairer, {20: repairer.correction_stream()}, *sounds, 1024)
    assert np.abs(alone - sounds[0]).max() > 1e-3
    np.testing.assert_allclose(swapped, alone, rtol=0.0, atol=1e-5)


def test_swapping_to_no_model_and_back_does_not_click(
    repairer: Repairer, sounds: tuple[np.ndarray, np.ndarray]
) -> None:
    stem, mix = sounds
    alone = run(repairer, {}, stem, mix, 1024)
    swapped = run(repairer, {60: None, 120: repairer.correction_stream()}, stem, mix, 1024)
    correction, full = swapped - stem, alone - stem
    quiet = ~correction.any(axis=0)
    first, last = np.flatnonzero(quiet & (np.arange(len(quiet)) > 40 * 1024))[[0, -1]]
    assert 60 * 1024 - repairer.stream(RATE, 2).latency_samples <= first <= 62 * 1024
    assert last > 120 * 1024, "the next model must process enough audio before it takes over"
    np.testing.assert_allclose(correction[:, last + RATE // 2 :], full[:, last + RATE // 2 :], rtol=0.0, atol=1e-5)
    # From sample to sample the correction changes by no more than it does anyway, plus the step of the fade.
    rise = np.abs(full).max() / (FADE_S * RATE)
    assert np.abs(np.diff(correction)).max() <= np.abs(np.diff(full)).max() + rise


def test_a_filter_swapped_in_is_close_once_the_model_is_ready_and_exact_once_its_memory_is_full(
    repairer: Repairer, lively_bundle: Path
) -> None:
    stem = sound(9.0)
    mix = np.float32(1.5) * stem + np.float32(0.3) * sound(9.0, seed=5)
    separated = Repairer(bundle=lively_bundle, separated=True)
    model = separated.correction_stream()
    alone = run(separated, {}, stem, mix, 1024)
    swapped = run(repairer, {20: model}, stem, mix, 1024)
    ready = 20 * 1024 + model.memory_samples + model.warmup_samples + RATE // 2
    correction, error = ((x - y)[:, ready:] for x, y in ((alone, stem), (swapped, alone)))
    assert np.square(error).sum() < 0.05 * np.square(correction).sum()
    whole = 20 * 1024 + model.history_samples + RATE // 2
    assert whole < 8 * RATE
    np.testing.assert_allclose(swapped[:, whole:], alone[:, whole:], rtol=0.0, atol=1e-4)


def test_a_model_with_another_timing_is_an_error(repairer: Repairer) -> None:
    class Other:
        timing = ModelTiming(256, 1024, 999)

    with pytest.raises(OptionError, match="cannot follow"):
        repairer.stream(RATE, 2).swap(Other())  # type: ignore[arg-type]


def test_a_swap_during_a_fade_waits_for_its_end(repairer: Repairer, sounds: tuple[np.ndarray, np.ndarray]) -> None:
    """Chunks have 512 samples and a fade 882, so the second swap comes in the middle of the first fade."""
    stem, mix = sounds
    stream, plain = (repairer.stream(RATE, 2, has_mix=True, chunk_frames=1) for _ in range(2))
    swapped, alone = [], []
    for number, start in enumerate(range(0, stem.shape[1], 512)):
        if number in (100, 101):
            stream.swap(None if number == 100 else repairer.correction_stream())
        part = slice(start, start + 512)
        swapped.append(stream.process(stem[:, part], mix[:, part]))
        alone.append(plain.process(stem[:, part], mix[:, part]))
    dry = np.pad(stem, ((0, 0), (stream.latency_samples, 0)))[:, : stem.shape[1]]
    correction, full = (np.concatenate(parts, axis=1) - dry for parts in (swapped, alone))
    assert np.abs(np.diff(correction)).max() <= np.abs(np.diff(full)).max() + np.abs(full).max() / (FADE_S * RATE)
    assert not correction[:, 120 * 512 : 125 * 512].any()
    np.testing.assert_allclose(correction[:, -RATE:], full[:, -RATE:], rtol=0.0, atol=1e-5)


def test_a_swap_can_change_the_wet_amount(repairer: Repairer, sounds: tuple[np.ndarray, np.ndarray]) -> None:
    stem, mix = sounds
    stream = Repairer(bundle=repairer.runtime.bundle.folder, wet=0.0).stream(RATE, 2, has_mix=True)
    stream.swap(repairer.correction_stream(), 0.5)
    out = [stream.process(stem[:, s : s + 4096], mix[:, s : s + 4096]) for s in range(0, stem.shape[1], 4096)]
    half = np.concatenate([*out, stream.flush()], axis=1)[:, stream.latency_samples :] - stem
    whole = run(repairer, {}, stem, mix, 4096) - stem
    assert not half[:, :RATE].any()
    np.testing.assert_allclose(half[:, -RATE:], 0.5 * whole[:, -RATE:], rtol=0.0, atol=1e-5)
    with pytest.raises(OptionError, match="wet=1.5"):
        stream.swap(None, 1.5)
