"""The mixer: dry signal and correction stay aligned, a late correction fades, and nothing else changes a sample."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.mixer import SETTING_FADE_S, Mixer, add_correction

RATE = 44100
FADE = round(SETTING_FADE_S * RATE)
RESERVE = 100


def ramp(count: int, start: int = 1) -> np.ndarray:
    """Samples (1, n) that tell where they come from: start, start + 1, ..."""
    return np.arange(start, start + count, dtype=np.float32)[None]


def ones(count: int) -> np.ndarray:
    return np.ones((1, count), np.float32)


def test_without_a_reserve_every_sample_can_be_pulled_with_its_correction_at_once() -> None:
    mixer = Mixer(1, RATE)
    mixer.push(ramp(500))
    mixer.push_correction(1000 * ramp(300))
    assert (mixer.missing(300), mixer.missing(301)) == (0, 1)
    mixed = mixer.pull(300)
    assert np.array_equal(mixed.audio, 1001 * ramp(300))
    assert (mixed.late, mixed.repaired) == (False, True)
    with pytest.raises(AssertionError, match="every correction is in time"):
        mixer.pull(1)


def test_silence_of_the_latency_leaves_before_the_first_sample() -> None:
    mixer = Mixer(2, RATE, latency_samples=150)
    mixer.push(np.repeat(ramp(200), 2, axis=0))
    assert (mixer.missing(150), mixer.missing(151), mixer.missing(160)) == (0, 1, 10)
    first = mixer.pull(100)
    assert first.audio.shape == (2, 100)
    assert not first.audio.any()
    assert (first.late, first.repaired) == (False, True)
    mixer.push_correction(np.repeat(ramp(200), 2, axis=0))
    rest = mixer.pull(250).audio
    assert not rest[:, :50].any()
    assert np.array_equal(rest[:, 50:], np.repeat(2 * ramp(200), 2, axis=0))


def test_missing_counts_the_reserve_until_the_end() -> None:
    mixer = Mixer(1, RATE, reserve_samples=RESERVE)
    mixer.push(ramp(500))
    mixer.push_correction(ramp(500))
    assert mixer.missing(500 - RESERVE) == 0
    assert mixer.missing(500) == RESERVE
    mixer.end()
    assert mixer.missing(500) == 0
    assert np.array_equal(mixer.pull(500).audio, 2 * ramp(500))


def test_a_late_correction_fades_out_and_in_over_the_reserve_and_is_dropped_when_it_comes() -> None:
    """Six blocks of 200 samples; the correction of the third and fourth comes after the fourth has left."""
    mixer, block, out, late = Mixer(1, RATE, reserve_samples=RESERVE), 200, [], []
    mixer.push(np.zeros((1, 6 * block), np.float32))
    mixer.push_correction(ones(2 * block + RESERVE // 2))
    for number in range(6):
        if number == 4:
            assert mixer.missing(1) == 1 + RESERVE + 2 * block - RESERVE // 2
            mixer.push_correction(np.full((1, 2 * block - RESERVE // 2), 99.0, np.float32))  # of samples that have left
            assert mixer.missing(1) == 1 + RESERVE
            mixer.push_correction(ones(2 * block + RESERVE))
        mixed = mixer.pull(block)
        out.append(mixed.audio)
        late.append(mixed.late)
    gains = np.concatenate(out, axis=1)[0]
    assert late == [False, True, True, True, True, False]
    assert np.all(gains[:block] == 1.0)
    assert np.abs(np.diff(gains)).max() == pytest.approx(1 / RESERVE, rel=1e-4), "a straight fade over the reserve"
    assert not gains[block + RESERVE : 4 * block].any()
    assert np.all(gains[4 * block + RESERVE :] == 1.0)


def test_after_a_late_correction_the_next_one_is_in_its_place() -> None:
    mixer = Mixer(1, RATE, reserve_samples=RESERVE)
    mixer.push(np.zeros((1, 2000), np.float32))
    mixer.push_correction(ramp(300))
    mixer.pull(500)
    mixer.push_correction(ramp(100, 301))  # too late in part: 301 to 400 have left
    mixer.push_correction(ramp(1600, 401))
    assert np.array_equal(mixer.pull(1000).audio[:, RESERVE:], ramp(1000, 501)[:, RESERVE:])


def test_a_correction_that_is_late_from_the_start_does_not_fade_out_first() -> None:
    mixer = Mixer(1, RATE, reserve_samples=RESERVE)
    mixer.push(np.zeros((1, 1000), np.float32))
    mixer.push_correction(ones(50))
    mixed = mixer.pull(100)
    assert not mixed.audio.any(), "its first samples must not click"
    assert mixed.late


def test_a_correction_counts_as_repaired_only_if_a_model_made_all_of_it() -> None:
    mixer = Mixer(1, RATE)
    mixer.push(ramp(300))
    mixer.push_correction(np.zeros((1, 100), np.float32), repaired=False)
    mixer.push_correction(ones(200))
    assert [mixer.pull(count).repaired for count in (50, 100, 150)] == [False, False, True]
    mixer.push(ramp(100))
    mixer.push_correction(np.zeros((1, 50), np.float32), repaired=False)
    mixer.push_correction(ones(50))
    mixer.skip(50)
    assert mixer.pull(50).repaired, "what was skipped does not count"


@pytest.mark.parametrize(("changes", "target"), [({"wet": 0.25}, 0.25), ({"wet": 0.0}, 0.0), ({"bypass": True}, 0.0)])
def test_wet_and_bypass_move_on_a_straight_line_of_20_ms(changes: dict[str, float], target: float) -> None:
    mixer = Mixer(1, RATE)
    mixer.push(np.zeros((1, 3000), np.float32))
    mixer.push_correction(ones(3000))
    mixer.pull(500)
    mixer.set(**changes)  # type: ignore[arg-type]
    gains = mixer.pull(2500).audio[0]
    fade = round(FADE * (1.0 - target))
    assert gains[:fade] == pytest.approx(1.0 - np.arange(1, fade + 1) / FADE, abs=2e-3)
    assert np.abs(np.diff(gains)).max() <= 1.001 / FADE
    assert np.all(gains[fade + 1 :] == np.float32(target))
    assert mixer.mute == (target == 0.0)


def test_bypass_keeps_the_wet_amount_for_later() -> None:
    mixer = Mixer(1, RATE, wet=0.5)
    mixer.push(np.zeros((1, 400), np.float32))
    mixer.push_correction(ones(400))
    assert np.all(mixer.pull(100).audio == 0.5)
    mixer.set(bypass=True, at_once=True)
    assert mixer.mute
    assert not mixer.pull(100).audio.any()
    mixer.set(wet=0.75, at_once=True)
    assert not mixer.pull(100).audio.any()
    mixer.set(bypass=False, at_once=True)
    assert not mixer.mute
    assert np.all(mixer.pull(100).audio == 0.75)


@pytest.mark.parametrize("there", [True, False])
def test_after_a_bypass_only_its_own_fade_is_audible(there: bool) -> None:
    """While nothing of it is audible nobody waits for the correction; that must not cause a fade of its own later."""
    mixer = Mixer(1, RATE, latency_samples=1000, reserve_samples=221)
    mixer.set(bypass=True, at_once=True)
    for _ in range(20):
        mixer.push(ones(500))
        assert not mixer.pull(500).late
    mixer.push_correction(ones(9000 + 500 * 12 * there))
    mixer.set(bypass=False)
    out = []
    for _ in range(10):
        mixer.push(ones(500))
        out.append(mixer.pull(500).audio)
    audio = np.concatenate(out, axis=1)
    if there:
        assert np.diff(audio).max() == pytest.approx(1 / FADE, rel=1e-3)
        assert (audio[:, FADE:] == 2.0).all()
    else:
        assert (audio == 1.0).all()


STRANGE = np.array([[0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -3e38, 0.1]], np.float32).repeat(2, axis=0)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_correction_of_zero_leaves_every_sample_as_it_is_bit_for_bit(zero: float) -> None:
    correction = np.full_like(STRANGE, zero)
    assert add_correction(STRANGE, correction).tobytes() == STRANGE.tobytes()
    for wet in (1.0, 0.3):
        mixer = Mixer(2, RATE, wet=wet)
        mixer.push(STRANGE)
        mixer.push_correction(correction)
        assert mixer.pull(8).audio.tobytes() == STRANGE.tobytes()


@pytest.mark.parametrize("changes", [{"wet": 0.0}, {"bypass": True}])
@pytest.mark.parametrize("there", [0, 3, 8])
def test_without_an_audible_correction_every_sample_stays_as_it_is_bit_for_bit(
    changes: dict[str, float], there: int
) -> None:
    mixer = Mixer(2, RATE, reserve_samples=RESERVE)
    mixer.set(**changes, at_once=True)  # type: ignore[arg-type]
    mixer.push(STRANGE)
    mixer.push_correction(np.full((2, there), -5.0, np.float32))
    mixed = mixer.pull(8)
    assert mixed.audio.tobytes() == STRANGE.tobytes()
    assert not mixed.late, "nobody can tell"


def test_what_was_pushed_is_not_changed() -> None:
    dry, correction = ramp(100), ramp(100)
    mixer = Mixer(1, RATE, wet=0.5, reserve_samples=RESERVE)
    mixer.push(dry)
    mixer.push_correction(correction)
    mixer.pull(40)
    mixer.pull(60)
    assert np.array_equal(dry, ramp(100))
    assert np.array_equal(correction, ramp(100))


@pytest.mark.parametrize("there", [0, 300, 5000])
def test_after_a_skip_everything_is_in_its_place(there: int) -> None:
    mixer = Mixer(1, RATE, latency_samples=100, reserve_samples=221)
    mixer.push(ramp(5000, 0))
    mixer.push_correction(1000 * ramp(5000, 0)[:, :there])
    mixer.skip(600)
    mixer.push_correction(1000 * ramp(5000, 0)[:, there:])
    audio = mixer.pull(1000).audio
    assert np.array_equal(audio[0, -500:], 1001 * ramp(5000, 0)[0, 1000:1500])


def test_a_skip_of_the_latency_alone_keeps_every_sample() -> None:
    mixer = Mixer(1, RATE, latency_samples=100)
    mixer.push(ramp(50))
    mixer.push_correction(ramp(50))
    mixer.skip(60)
    assert np.array_equal(mixer.pull(90).audio[:, 40:], 2 * ramp(50))


SIZES = st.lists(st.integers(0, 400), max_size=12)


def parts_of(total: int, counts: list[int]) -> list[slice]:
    """Consecutive slices of these sizes, and one more for the rest."""
    return [slice(start, stop) for start, stop in pairwise([0, *np.minimum(np.cumsum(counts), total).tolist(), total])]


@settings(deadline=None, max_examples=40)
@given(
    pushes=SIZES, corrections=SIZES, pulls=SIZES, latency=st.integers(0, 300), reserve=st.sampled_from([0, RESERVE]),
    wet=st.sampled_from([0.0, 0.3, 1.0]),
)  # fmt: skip
def test_any_split_gives_the_same(
    pushes: list[int], corrections: list[int], pulls: list[int], latency: int, reserve: int, wet: float
) -> None:
    rng = np.random.default_rng(0)
    dry, correction = rng.standard_normal((2, 2, 2000)).astype(np.float32)
    whole = Mixer(2, RATE, latency_samples=latency, reserve_samples=reserve)
    whole.push(dry)
    whole.push_correction(correction)
    whole.end()
    whole.set(wet=wet)
    settled = latency + FADE + 20  # each pull may lengthen the fade by a sample, by rounding
    expected = np.concatenate([whole.pull(settled).audio, whole.pull(2000 + latency - settled).audio], axis=1)
    mixer = Mixer(2, RATE, latency_samples=latency, reserve_samples=reserve)
    for part in parts_of(2000, pushes):
        mixer.push(dry[:, part])
    for part in parts_of(2000, corrections):
        mixer.push_correction(correction[:, part])
    mixer.end()
    mixer.set(wet=wet)
    pulled = [*parts_of(settled, pulls), *parts_of(2000 + latency - settled, pulls)]
    found = [mixer.pull(part.stop - part.start) for part in pulled]
    audio = np.concatenate([mixed.audio for mixed in found], axis=1)
    if wet == 1.0:
        assert audio.tobytes() == expected.tobytes()
    np.testing.assert_allclose(audio, expected, rtol=0.0, atol=2e-5)
    assert audio[:, settled:].tobytes() == expected[:, settled:].tobytes()
    assert not any(mixed.late for mixed in found)
    assert all(mixed.repaired for mixed in found)
