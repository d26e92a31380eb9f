"""The proof of a mix: what is corrected, what is left out, and that no mix makes a stem worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DEMO
from stemprover.benchmarks.mix_changes import BLEED, coded, drift, limited, shift
from stemprover.benchmarks.mix_proof import MAX_HARM_DB, change_db, is_harm, nth_draw, tools
from stemprover.engine.mix.fit import MixFit
from stemprover.engine.mix.timing import Stretch, TimeMap, fit_time_map
from stemprover.offline.audiofile import probe
from stemprover.offline.mix_reader import FittedMix, MixReader
from stemprover.offline.proof import mix_notes, prove

RATE = 44100
MAX_PROCESSED_HARM_DB = 1.5
TRUTH, MIX = (
    soundfile.read(DEMO / f"{name}.flac", dtype="float64", start=RATE, frames=8 * RATE)[0].T
    for name in ("truth", "song")
)
REST = MIX - TRUTH
STEM = TRUTH + BLEED * REST
HALF = MIX.shape[1] // 2


@pytest.fixture
def proved(tmp_path: Path) -> Callable[..., tuple[MixFit, str, np.ndarray | None]]:
    """The fit of a mix, what is said about it, and the mix as the stem gets it."""

    def run(stem: np.ndarray, mix: np.ndarray) -> tuple[MixFit, str, np.ndarray | None]:
        paths = tmp_path / "stem.wav", tmp_path / "mix.wav"
        for path, audio in zip(paths, (stem, mix), strict=True):
            soundfile.write(path, audio.T, RATE, subtype="FLOAT")
        infos = probe(paths[0]), probe(paths[1])
        fit = prove(*infos)
        read = FittedMix(*infos, fit).take(stem.shape[1]) if fit.found else None
        return fit, "; ".join(mix_notes(fit, *infos)), read

    return run


def error_db(found: np.ndarray, wanted: np.ndarray, start: int = 0, stop: int | None = None) -> float:
    part = slice(start, stop)
    return 10 * float(np.log10(np.sum((found - wanted)[:, part] ** 2) / np.sum(wanted[:, part] ** 2) + 1e-20))


def test_the_right_mix_is_passed_on_as_it_is(proved: Callable) -> None:
    for stem in (TRUTH, STEM):
        fit, said, read = proved(stem, MIX)
        assert (fit.found, fit.time, fit.condition, said) == (True, TimeMap(), None, "")
        np.testing.assert_array_equal(read, MIX.astype(np.float32))


def test_swapped_channels_are_found_where_one_comes_later_than_the_other(proved: Callable) -> None:
    heard = TRUTH.mean(axis=0, keepdims=True)
    stem = np.concatenate([heard, 0.8 * shift(heard, 23)])
    fit, said, read = proved(stem, (stem + REST)[::-1])
    assert (fit.routing.sources, fit.time) == ((1, 0), TimeMap())
    assert said == "mix has left and right swapped: corrected"
    np.testing.assert_array_equal(read, (stem + REST).astype(np.float32))


def test_a_mono_mix_that_ends_early_is_a_mono_mix(proved: Callable) -> None:
    mono = np.repeat(MIX.mean(axis=0, keepdims=True), 2, axis=0)
    fit, said, _ = proved(STEM, shift(mono, -999))
    assert fit.routing.sources is None
    assert "is the same in both channels" in said


@pytest.mark.parametrize("stem", [TRUTH, STEM], ids=["true", "with bleed"])
def test_the_rest_of_the_song_is_named(proved: Callable, stem: np.ndarray) -> None:
    fit, said, read = proved(stem, REST)
    assert (fit.found, read) == (False, None)
    assert "this looks like the rest of the song, not the mix" in said
    assert "--rest" in said


def test_another_song_is_left_out(proved: Callable) -> None:
    rng = np.random.default_rng(1)
    for other in (MIX[:, ::-1][:, :-3000], 0.1 * rng.standard_normal((2, HALF * 2 + 4000))):
        fit, said, _ = proved(STEM, other)
        assert not fit.found
        assert "stem not found in the mix" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[::-1], "mix has left and right swapped: corrected"),
        (lambda x: -x, "mix has inverted polarity: corrected"),
        (lambda x: x * [[1.0], [-1.0]], "mix has inverted polarity in the right channel: corrected"),
        (
            lambda x: x * [[1.122], [0.891]],
            "left is 1.0 dB quieter and right is 1.0 dB louder than in the mix: corrected",
        ),
        (lambda x: x * 0.5, "stem is 6.0 dB louder than in the mix: corrected"),
    ],
)  # fmt: skip
def test_channels_polarities_and_levels_are_corrected(proved: Callable, change: Callable, said: str) -> None:
    _, found, read = proved(STEM, change(MIX))
    assert found == said
    np.testing.assert_allclose(read, MIX, atol=0.003)


@settings(max_examples=12, deadline=None)
@given(samples=st.floats(-3000, 3000))
def test_an_offset_is_corrected_to_a_fraction_of_a_sample(
    tmp_path_factory: pytest.TempPathFactory, samples: float
) -> None:
    folder = tmp_path_factory.mktemp("offset")
    for name, audio in (("stem", STEM), ("mix", shift(MIX, samples))):
        soundfile.write(folder / f"{name}.wav", audio.T, RATE, subtype="FLOAT")
    fit = prove(probe(folder / "stem.wav"), probe(folder / "mix.wav"))
    assert fit.time.first_offset == pytest.approx(samples, abs=0.1)


def test_a_drifting_clock_is_followed(proved: Callable) -> None:
    for seed in range(3):
        mix, name = drift(MIX, np.random.default_rng(seed))
        fit, said, read = proved(TRUTH, mix)
        ppm = float(name.split()[1])
        assert -fit.time.stretches[0].drift * 1e6 == pytest.approx(-ppm, abs=1.5) or abs(ppm) < 2
        assert "ppm" in said
        assert error_db(read, MIX, RATE, 7 * RATE) < -25


def test_a_drift_is_found_from_a_second_and_a_half_of_sound(proved: Callable) -> None:
    slow, _ = drift(MIX, np.random.default_rng(5))
    short = TRUTH * (np.arange(TRUTH.shape[1]) < 1.5 * RATE)
    fit, _, _ = proved(short, slow)
    assert abs(fit.time.stretches[0].drift) == pytest.approx(61e-6, rel=0.1)


def test_a_stem_with_one_inverted_channel_is_repaired_in_phase(proved: Callable) -> None:
    signs = np.array([[1.0], [-1.0]])
    fit, said, read = proved(STEM * signs, MIX)
    assert said == "stem has inverted polarity in the right channel: corrected"
    np.testing.assert_array_equal(read, MIX.astype(np.float32))
    np.testing.assert_array_equal(fit.prepare(STEM * signs), STEM)
    np.testing.assert_array_equal(fit.restore(STEM, STEM * signs), STEM * signs)


@pytest.mark.parametrize("samples", [1, 5, -40, 500, 12_000])
def test_a_slip_is_found_and_followed(proved: Callable, samples: int) -> None:
    mix = np.concatenate([MIX[:, :HALF], shift(MIX, samples)[:, HALF:]], axis=1)
    fit, said, read = proved(STEM, mix)
    assert [stretch.offset for stretch in fit.time.stretches] == pytest.approx([0, samples], abs=0.1)
    assert f"mix slips by {samples:+.3g} sample" in said
    assert error_db(read, MIX, 0, HALF - RATE // 5) < -40
    assert error_db(read, MIX, HALF + RATE // 5, -abs(samples) - 1) < -40


def test_a_slip_is_placed_where_it_is_though_the_clock_drifts_too(proved: Callable) -> None:
    slipped, _ = drift(np.concatenate([MIX[:, :HALF], shift(MIX, 375)[:, HALF:]], axis=1), np.random.default_rng(5))
    fit, _, _ = proved(STEM, slipped)
    assert len(fit.time.stretches) == 2
    assert fit.time.stretches[1].start == pytest.approx(HALF, abs=0.03 * RATE)


def test_a_mix_that_a_resampler_has_cut_off_is_used_below(proved: Callable) -> None:
    spectrum, hz = np.fft.rfft(MIX), np.fft.rfftfreq(MIX.shape[1], 1 / RATE)
    fit, said, read = proved(STEM, np.fft.irfft(np.where(hz < 20_000, spectrum, 0.0), MIX.shape[1]))
    assert fit.condition is not None
    assert fit.condition.ceiling_hz == pytest.approx(20_000, abs=350)
    assert "mix has nothing above" in said
    assert read is not None
    found, stem = np.fft.rfft(read), np.fft.rfft(STEM)
    for wanted, places in ((spectrum, hz < 19_500), (stem, hz > 20_500)):
        assert np.linalg.norm((found - wanted)[:, places]) < 0.1 * np.linalg.norm(wanted[:, places])
    assert proved(STEM, np.fft.irfft(np.where(hz < 16_000, spectrum, 0.0), MIX.shape[1]))[0].reason == "coded"


def test_a_stem_may_have_noise_where_its_mix_ends(proved: Callable) -> None:
    """As a separator's stem of a song from an MP3 has, written in 16 bit."""
    hz = np.fft.rfftfreq(MIX.shape[1], 1 / RATE)
    stem, mix = (np.fft.irfft(np.where(hz < 16_000, np.fft.rfft(x), 0.0), MIX.shape[1]) for x in (STEM, MIX))
    dithered = np.round(stem * 32768 + np.random.default_rng(0).triangular(-1, 0, 1, stem.shape)) / 32768
    fit, said, read = proved(dithered, mix)
    assert (fit.found, fit.condition, said) == (True, None, "")
    np.testing.assert_array_equal(read, mix.astype(np.float32))


@pytest.mark.parametrize("db", [-7.3, -3.0, 4.0])
def test_the_level_of_a_mix_is_found_beside_an_edit_or_the_mix_is_left_out(proved: Callable, db: float) -> None:
    gain = 10 ** (db / 20)
    edited = np.concatenate([MIX[:, :HALF], np.roll(MIX, HALF // 2, axis=1)[:, HALF:]], axis=1)
    fit, _, _ = proved(TRUTH, gain * edited)
    assert not fit.found or fit.gains == pytest.approx((gain, gain), rel=0.03)


def test_an_edit_is_left_out_with_its_times(proved: Callable) -> None:
    mix = np.concatenate([MIX[:, : HALF + RATE], MIX[:, ::-1][:, HALF + RATE :]], axis=1)
    fit, said, read = proved(STEM, mix)
    assert fit.found
    assert "left out there" in said
    np.testing.assert_array_equal(
        read[:, HALF + RATE : HALF + 2 * RATE], STEM.astype(np.float32)[:, HALF + RATE :][:, :RATE]
    )
    np.testing.assert_array_equal(read[:, :RATE], MIX.astype(np.float32)[:, :RATE])


def test_a_mono_mix_helps_with_the_middle(proved: Callable) -> None:
    for mono in (MIX.mean(axis=0, keepdims=True), np.repeat(MIX.mean(axis=0, keepdims=True), 2, axis=0)):
        _, said, read = proved(STEM, mono)
        assert "mix is the same in both channels: corrected" in said
        np.testing.assert_allclose(read.mean(axis=0), MIX.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(read[0] - read[1], STEM[0] - STEM[1], atol=1e-5)


def test_a_dead_channel_is_left_alone(proved: Callable) -> None:
    dead = np.array([[1.0], [0.0]])
    fit, _, read = proved(STEM * dead, MIX)
    np.testing.assert_array_equal(read, np.repeat(MIX[:1], 2, axis=0).astype(np.float32))
    np.testing.assert_array_equal(fit.prepare(STEM * dead), np.repeat(STEM[:1], 2, axis=0))
    np.testing.assert_array_equal(fit.restore(STEM, STEM * dead), STEM * dead)
    _, said, read = proved(STEM, MIX * dead)
    assert "left out there" in said
    np.testing.assert_array_equal(read[1], STEM.astype(np.float32)[1])


@pytest.mark.parametrize(("kind", "kbps"), [("MP3", 128), ("OPUS", 96)])
def test_a_mix_that_was_coded_after_the_stem_was_made_is_left_out(proved: Callable, kind: str, kbps: float) -> None:
    for stem in (TRUTH, STEM):
        fit, said, _ = proved(stem, coded(MIX, kind, kbps))
        assert (fit.found, fit.reason) == (False, "coded")
        assert "the mix was coded (MP3, Opus or the like) after the stem was made" in said


def test_the_level_behind_a_limiter_is_found(proved: Callable) -> None:
    fit, said, _ = proved(TRUTH, limited(MIX, 3.0))
    assert fit.found
    assert "quieter than in the mix: corrected" in said


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), drift_ppm=st.floats(-100, 100), jump=st.floats(-300, 300))
def test_a_time_map_is_fitted_through_outliers(seed: int, drift_ppm: float, jump: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.arange(40) * 12288.0
    y = 3.0 + drift_ppm * 1e-6 * x + np.where(x > 20.5 * 12288, jump, 0.0) + 0.01 * rng.standard_normal(40)
    y[rng.choice(40, 4, replace=False)] += rng.uniform(-20, 20, 4)
    found = fit_time_map(x, y).offsets(x)
    wanted = 3.0 + drift_ppm * 1e-6 * x + np.where(x > 20.5 * 12288, jump, 0.0)
    far = np.abs(np.arange(40) - 20.5) > 2
    assert np.median(np.abs(found - wanted)[far]) < 0.35


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    offset=st.floats(-500, 500),
    drift_ppm=st.sampled_from([0.0, 70.0, -70.0]),
)
def test_a_mix_read_in_any_blocks_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], offset: float, drift_ppm: float
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "mix.wav"
    soundfile.write(path, MIX.T[: 4 * RATE], RATE, subtype="FLOAT")
    time = TimeMap((Stretch(0, offset, drift_ppm * 1e-6), Stretch(50_000, round(offset) + 7)))
    whole = MixReader(probe(path), time).take(sum(sizes))
    reader = MixReader(probe(path), time)
    np.testing.assert_allclose(np.concatenate([reader.take(n) for n in sizes], axis=1), whole, atol=1e-6)


def test_no_change_to_a_mix_makes_a_stem_worse() -> None:
    """Forty draws; benchmarks/mix_proof.py makes hundreds, from other songs. A limiter may still cost more
    than the half decibel that is allowed elsewhere."""
    material, repairs = tools(None)
    harmed = []
    for number in range(40):
        one = nth_draw(material, 20, number, 4.0)
        out, said = repairs(one.stem, one.mix)
        change = change_db(out, one)
        if one.kind == "processed" and change > -MAX_PROCESSED_HARM_DB:
            continue
        if change < -MAX_HARM_DB and is_harm(change, change_db(repairs(one.stem, one.clean)[0], one)):
            harmed.append(f"{number}: {one.kind}, {one.done}: {change:.1f} dB; {said}")
    assert not harmed, "\n".join(harmed)
