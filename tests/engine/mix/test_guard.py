"""The mix beside a live stream: used once proved, left out when it stops fitting, and brought into step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from paths import DEMO
from stemprover.engine.mix import guard as guards
from stemprover.engine.mix.guard import MixGuard, MixState

RATE = 44100
TRUTH, MIX = (
    soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=10 * RATE)[0].T for name in ("truth", "song")
)
STEM = TRUTH + np.float32(0.12) * (MIX - TRUTH)


def listen(guard: MixGuard, stem: np.ndarray, mix: np.ndarray, block: int = 512) -> Iterator[tuple[float, np.ndarray]]:
    """Plays both; the seconds played and what the guard lets through, block by block. Waits for its searches."""
    for start in range(0, stem.shape[1], block):
        part = slice(start, start + block)
        yield (start + block) / RATE, guard.process(stem[:, part], mix[:, part])
        if guard._search is not None:
            guard._search.result()


def used_after(guard: MixGuard, stem: np.ndarray, mix: np.ndarray) -> float | None:
    """Seconds until the mix is used, None for never."""
    return next((seconds for seconds, _ in listen(guard, stem, mix) if guard.uses_mix), None)


@pytest.mark.parametrize("stem", [TRUTH, STEM], ids=["true", "with bleed"])
def test_the_right_mix_is_proved_within_seconds_and_then_passed_on_as_it_is(stem: np.ndarray) -> None:
    guard = MixGuard(RATE, 2)
    seconds = used_after(guard, stem, MIX)
    assert seconds is not None
    assert seconds < 6.0
    parts = [part for _, part in listen(guard, stem, MIX)]
    np.testing.assert_array_equal(parts[-1], MIX[:, -parts[-1].shape[1] :])


@pytest.mark.parametrize("block", [64, 480, 8192])
def test_until_it_is_proved_the_stem_stands_in_for_the_mix(block: int) -> None:
    guard = MixGuard(RATE, 2)
    for start in range(0, RATE // 2, block):
        part = slice(start, start + block)
        np.testing.assert_array_equal(guard.process(STEM[:, part], MIX[:, part]), STEM[:, part])


def test_the_rest_of_the_song_and_another_song_are_never_used() -> None:
    for wrong in (MIX - TRUTH, MIX[:, ::-1], np.zeros_like(MIX)):
        guard = MixGuard(RATE, 2)
        assert used_after(guard, STEM, wrong) is None
    assert guard.report.state is MixState.DOES_NOT_FIT
    assert "not this song" in str(guard.report)


def test_a_mix_that_stops_fitting_is_left_out_within_a_second_without_a_click() -> None:
    guard = MixGuard(RATE, 2)
    assert used_after(guard, STEM, MIX) is not None
    jumped = np.roll(MIX, 4 * RATE, axis=1)
    parts = []
    for seconds, part in listen(guard, STEM, jumped):
        parts.append(part)
        gone = seconds
        if not guard.uses_mix:
            break
    assert gone < 1.2
    for number in range(8):  # the fade of 20 ms ends
        start = round(gone * RATE) + 512 * number
        parts.append(guard.process(STEM[:, start : start + 512], jumped[:, start : start + 512]))
    heard = np.concatenate(parts, axis=1)
    stem = STEM[:, : heard.shape[1]]
    np.testing.assert_array_equal(heard[:, -1024:], stem[:, -1024:])
    steps = np.abs(np.diff(heard - stem, axis=1)).max()
    assert steps <= 1.1 * np.abs(np.diff(jumped - STEM, axis=1)).max()


@pytest.mark.parametrize("early", [37, 4410, 20000])
def test_a_mix_that_comes_early_is_delayed(early: int) -> None:
    guard = MixGuard(RATE, 2)
    stem, mix = (np.concatenate([x, x], axis=1) for x in (STEM, MIX))
    assert used_after(guard, stem[:, : -early - 1], mix[:, early:]) is not None
    assert guard.report.late_samples == -early
    assert f"{early} samples early: corrected" in str(guard.report)


def test_a_mix_that_comes_late_is_told_in_samples() -> None:
    guard = MixGuard(RATE, 2)
    late = np.pad(MIX, ((0, 0), (1500, 0)))[:, : STEM.shape[1]]
    assert used_after(guard, STEM, late) is None
    assert (guard.report.state, guard.report.late_samples) == (MixState.LATE, 1500)
    assert "1500 samples late" in str(guard.report)


def test_polarity_and_channels_are_corrected() -> None:
    for change in (lambda x: -x, lambda x: x[::-1], lambda x: x * np.array([[1.0], [-1.0]], np.float32)):
        guard = MixGuard(RATE, 2)
        mix = change(MIX).astype(np.float32)
        assert used_after(guard, STEM, mix) is not None
        part = [part for _, part in listen(guard, STEM, mix)][-1]
        np.testing.assert_allclose(part, MIX[:, -part.shape[1] :], atol=1e-6)


def test_silence_changes_nothing() -> None:
    guard = MixGuard(RATE, 2)
    assert used_after(guard, STEM, MIX) is not None
    silence = np.zeros((2, 5 * RATE), np.float32)
    assert all(guard.uses_mix for _ in listen(guard, silence, MIX[:, : 5 * RATE]))
    assert guards.RECENT_UNITS > guards.LOSSES
