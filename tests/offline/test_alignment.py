"""Alignment of a mix with a stem: offset, polarity, level, and whether the stem is in the mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
from fakes import FakeRepairer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import sound
from stemprover.engine.mix.locate import MAX_OFFSET_S, Alignment, estimate_alignment
from stemprover.engine.mix.timing import TimeMap
from stemprover.engine.preset import check_preset
from stemprover.engine.train.corpus.simulated_faults import SIMULATORS
from stemprover.offline.analysis import analyse_pair
from stemprover.offline.audiofile import probe
from stemprover.offline.mix_reader import MixReader
from stemprover.offline.pair import StemAndMix
from stemprover.offline.proof import prove
from stemprover.offline.render import render_file
from stemprover.reports.compare import compare_files

RATE = 44100
TIMES = np.arange(4 * RATE) / RATE
#: Two voices at different times and pitches, so that each is sometimes alone.
ALONE, BESIDE = (
    0.1 * np.array([[1.0], [0.7]]) * np.sin(2 * np.pi * pitch * TIMES) * (np.sin(2 * np.pi * often * TIMES) > 0)
    for pitch, often in ((330.0, 1.3), (1870.0, 0.9))
)
STEM, REST = 0.3 * sound(4.0, RATE, seed=1), 0.3 * sound(4.0, RATE, seed=2)[:, ::-1]


class ArraySource:
    """A mix in memory, with silence before and after it."""

    def __init__(self, mix: np.ndarray, rate: int = RATE) -> None:
        self.mix = np.pad(mix, ((0, 0), (round(MAX_OFFSET_S * rate), 0)))

    def take(self, samples: int) -> np.ndarray:
        taken, self.mix = self.mix[:, :samples], self.mix[:, samples:]
        return np.pad(taken, ((0, 0), (0, samples - taken.shape[1])))


def blocks(audio: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (audio[:, start : start + size] for start in range(0, audio.shape[1], size))


def estimate(stem: np.ndarray, mix: np.ndarray, size: int = 65536, rate: int = RATE) -> Alignment:
    return estimate_alignment(blocks(stem, size), ArraySource(mix, rate), rate)


def shifted(audio: np.ndarray, offset: int) -> np.ndarray:
    """Delayed by `offset` samples, with silence at the start; if negative, without its first samples."""
    return np.pad(audio, ((0, 0), (max(offset, 0), 0)))[:, max(-offset, 0) :]


@settings(max_examples=25, deadline=None)
@given(
    offset=st.integers(-round(MAX_OFFSET_S * RATE), round(MAX_OFFSET_S * RATE)),
    size=st.sampled_from([1000, 65536, 10**6]),
    gain=st.sampled_from([1.0, -1.0, 0.03]),
)
def test_an_offset_is_found_to_the_sample(offset: int, size: int, gain: float) -> None:
    stem, mix = np.float32(gain) * STEM, shifted(STEM + REST, offset)
    assert estimate(stem, mix, size) == Alignment(offset, True, -1 if gain < 0 else 1)


@pytest.mark.parametrize("rate", [8000, 192000])
@pytest.mark.parametrize("channels", [1, 6])
def test_an_offset_is_found_at_any_rate_with_any_number_of_channels(rate: int, channels: int) -> None:
    rng = np.random.default_rng(6)
    stem, rest = 0.1 * rng.standard_normal((2, channels, 2 * rate))
    for offset in (-rate // 3, 1, 5, rate // 2):
        assert estimate(stem, shifted(stem + rest, offset), rate=rate) == Alignment(offset, True)


@pytest.mark.parametrize("seconds", [0.1, 0.4])
def test_an_offset_is_found_for_a_short_stem(seconds: float) -> None:
    stem, mix = STEM[:, : round(seconds * RATE)], STEM + REST
    for offset in (0, 500, 20000):
        assert estimate(stem, shifted(mix, offset)) == Alignment(offset, True)


@pytest.mark.parametrize("kind", list(SIMULATORS))
@pytest.mark.parametrize("offset", [0, 1105, -529, 64, 1])
def test_an_offset_is_found_for_stems_with_any_fault(kind: str, offset: int) -> None:
    faulty = SIMULATORS[kind](STEM, REST, 0.8, np.random.default_rng(3))
    assert estimate(faulty, shifted(STEM + REST, offset)) == Alignment(offset, True)


@pytest.mark.parametrize("offset", [0, 882, -882, 5000])
def test_a_loop_is_not_shifted_by_a_beat(offset: int) -> None:
    rng = np.random.default_rng(7)
    stem, rest = (np.tile(0.1 * rng.standard_normal((2, RATE // 4)), 24) for _ in range(2))
    assert estimate(stem, shifted(stem + rest, offset)) == Alignment(offset, True)


@pytest.mark.parametrize("offset", [0, 1105, -2000])
def test_a_bass_drum_is_aligned_within_a_hundredth_of_its_period(offset: int) -> None:
    rng = np.random.default_rng(9)
    t = np.arange(RATE // 3) / RATE
    stem = np.zeros((2, 6 * RATE))
    for start in (rng.integers(0, RATE // 4) + np.arange(14) * 18_000 + rng.integers(-3000, 3000, 14)).clip(0):
        kick = 0.5 * np.exp(-t / 0.1) * np.sin(2 * np.pi * rng.uniform(50, 60) * t)
        stem[:, start : start + len(t)] += kick[: stem.shape[1] - start]
    rest = 0.05 * np.cumsum(rng.standard_normal(stem.shape), axis=1)
    rest -= np.apply_along_axis(lambda x: np.convolve(x, np.ones(2000) / 2000, "same"), 1, rest)
    found = estimate(stem, shifted(stem + 0.02 * rest, offset))
    assert found.found
    assert abs(found.offset_samples - offset) <= 8, "a hundredth of its period"


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_stem_that_is_not_in_the_mix_is_reported_and_not_shifted(channels: int) -> None:
    rng = np.random.default_rng(4)
    stem, mix = 0.1 * rng.standard_normal((2, channels, 3 * RATE))
    alignment = estimate(stem, mix)
    assert alignment == Alignment(0, False)
    for quiet in (0.0, 1e-5):
        assert estimate(quiet * stem, mix) == Alignment(0, True), "silence and dither match any mix"


@pytest.mark.parametrize("offset", [1105, -700])
@pytest.mark.parametrize("longer", [0, 2000, -2000])
def test_a_repair_gets_the_mix_in_step_with_the_stem(
    make_audio: Callable[..., Path], tmp_path: Path, offset: int, longer: int
) -> None:
    stem = make_audio("stem.wav", levels=STEM, subtype="FLOAT")
    whole = STEM + REST
    levels = shifted(whole, offset)
    levels = np.pad(levels, ((0, 0), (0, max(longer, 0))))[:, : levels.shape[1] + min(longer, 0)]
    song = make_audio("song.wav", levels=levels, subtype="FLOAT")
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    made = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    start, stop = max(-offset, 0), min(whole.shape[1], levels.shape[1] - offset)
    wanted = STEM.astype(np.float32)  # where the mix has no samples
    wanted[:, start:stop] = levels[:, start + offset : stop + offset]
    np.testing.assert_array_equal(made, wanted)
    when = "before" if offset > 0 else "after"
    how_far = f"{abs(offset) / 44.1:.1f} ms ({abs(offset)} samples)"
    assert report.notes[0] == f"mix starts {how_far} {when} the stem: corrected"
    gaps = {"start": start, "end": whole.shape[1] - stop}
    places = " and ".join(f"{samples} samples at the {end}" for end, samples in gaps.items() if samples)
    note = f"the mix does not cover {places} of the stem: repaired as if nothing else played there"
    assert report.notes[1:] == ((note,) if places else ())


def test_a_stem_with_inverted_polarity_gets_the_mix_inverted(make_audio: Callable[..., Path], tmp_path: Path) -> None:
    stem = make_audio("stem.wav", levels=-STEM, subtype="FLOAT")
    song = make_audio("song.wav", levels=STEM + REST, subtype="FLOAT")
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T, -(STEM + REST))
    assert report.notes == ("mix has inverted polarity: corrected",)


@settings(max_examples=15, deadline=None)
@example(level_db=-14.0, bleed=0.2)  # the bleed is as loud as in the mix
@given(level_db=st.floats(-20.0, 11.0).filter(lambda db: abs(db) > 0.3), bleed=st.sampled_from([0.0, 0.2]))
def test_a_level_is_found_to_a_tenth_of_a_decibel(level_db: float, bleed: float) -> None:
    gain = 10 ** (level_db / 20)
    alignment = estimate((ALONE + bleed * BESIDE) / gain, ALONE + BESIDE)
    assert alignment.level_difference_db == pytest.approx(level_db, abs=0.1)
    assert (alignment.offset_samples, alignment.found) == (0, True)


@pytest.mark.parametrize("bleed", [0.03, 0.3, 0.9])
def test_bleed_and_a_separators_mask_are_not_mistaken_for_a_level(bleed: float) -> None:
    assert estimate(ALONE + bleed * BESIDE, ALONE + BESIDE).gain == 1.0
    stft = scipy.signal.ShortTimeFFT(scipy.signal.windows.hann(4096), 1024, 1)
    own, rest = (np.abs(stft.stft(sound)) ** 2 for sound in (ALONE, BESIDE))
    masked = stft.istft(stft.stft(ALONE + BESIDE) * own / (own + rest + 1e-12), k1=ALONE.shape[1])
    assert estimate(masked, ALONE + BESIDE).gain == 1.0


@pytest.mark.parametrize("kind", ["phasiness", "smeared-transients"])
@pytest.mark.parametrize("bleed", [0.3, 0.5])
def test_bleed_in_a_stem_that_is_damaged_all_over_is_not_mistaken_for_a_level(kind: str, bleed: float) -> None:
    faulty = SIMULATORS[kind](STEM, REST, 1.0, np.random.default_rng(3))
    for rest in (REST, BESIDE):
        assert estimate(faulty + bleed * rest, STEM + rest).gain == 1.0


@pytest.mark.parametrize(("level_db", "how"), [(6.0, "6.0 dB quieter"), (-3.0, "3.0 dB louder")])
def test_a_stem_that_was_turned_up_or_down_gets_the_mix_at_its_level(
    make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path, level_db: float, how: str
) -> None:
    gain = 10 ** (level_db / 20)
    stem = make_audio("stem.wav", levels=ALONE / gain, subtype="FLOAT")
    song = make_audio("song.wav", levels=-shifted(ALONE + BESIDE, 441), subtype="FLOAT")
    fake = FakeRepairer(gain=0.0, mix_gain=1.0)
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    made = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    np.testing.assert_allclose(made, (ALONE + BESIDE) / gain, atol=0.01 / gain)
    assert report.notes == (
        "mix starts 10 ms (441 samples) before the stem and has inverted polarity, "
        f"stem is {how} than in the mix: corrected",
    )
    other = make_audio("other.wav", levels=BESIDE, subtype="FLOAT")
    ran = run_cli("repair", stem, other, "-o", tmp_path / "set", "--mix", song, repairer=FakeRepairer())
    assert ran.code == 0, ran.err
    assert f"stem.wav is {abs(level_db):.2f} dB too {'quiet' if level_db > 0 else 'loud'}: corrected" in ran.out


def test_a_mix_without_the_stem_is_left_out(make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    stem = make_audio("stem.wav", levels=STEM, subtype="FLOAT")
    song = make_audio("song.wav", levels=0.1 * rng.standard_normal((2, STEM.shape[1] + 3000)), subtype="FLOAT")
    fake = FakeRepairer()
    report = render_file(stem, tmp_path / "out.wav", fake, mix=song)
    assert fake.had_mix is False
    assert "stem not found in the mix, so the mix was left out" in report.notes[0]
    assert not analyse_pair(StemAndMix.open(stem, song)).has_mix
    found = compare_files(stem, stem, mix=song, brief=True)
    assert found.rows == compare_files(stem, stem, brief=True).rows
    assert found.notes == report.notes
    other = make_audio("rest.wav", levels=REST, subtype="FLOAT")
    result = run_cli("repair", stem, other, "-o", tmp_path / "set", "--mix", song, repairer=FakeRepairer())
    assert result.code == 3, result.err
    assert "the mix does not fit" in result.out


def test_plugins_before_the_repair_start_at_the_same_sample_of_stem_and_mix(
    make_audio: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    text = 'name = "own"\ntitle = "Own"\ndescription = "Mine."\nfor = "stems"\n'
    text += '[[before]]\nplugin = "HighpassFilter"\ncutoff_frequency_hz = 200\n'
    (folder / "preset.toml").write_text(text)
    stem = make_audio("stem.wav", levels=STEM, subtype="FLOAT")
    straight = make_audio("song.wav", levels=STEM + REST, subtype="FLOAT")
    moved = make_audio("moved.wav", levels=shifted(STEM + REST, 1105), subtype="FLOAT")
    for number, song in enumerate((straight, moved)):
        fake = FakeRepairer(gain=0.0, mix_gain=1.0)
        render_file(stem, tmp_path / f"{number}.wav", fake, mix=song, preset=check_preset(folder))
    one, other = (soundfile.read(tmp_path / f"{number}.wav")[0] for number in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_an_encoders_delay_is_corrected(
    make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowpass = scipy.signal.butter(8, 12_000, fs=RATE, output="sos")
    dull_stem, dull_rest = (scipy.signal.sosfiltfilt(lowpass, x) for x in (STEM, REST))
    stem = make_audio("stem.wav", levels=dull_stem, subtype="FLOAT")
    subtype = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}[kind]
    for offset in (0, 1105):
        song = make_audio(f"song.{kind}", levels=shifted(dull_stem + dull_rest, offset), subtype=subtype)
        found = prove(probe(stem), probe(song))
        assert found.found
        assert -1 < found.time.first_offset - offset < 2000, "the codec may add a delay of its own"
    rest = make_audio("rest.wav", levels=dull_rest, subtype="FLOAT")
    monkeypatch.setattr("stemprover.offline.stem_set.MAX_MISSING_DB", -1.5)  # a codec loses much of noise
    result = run_cli("repair", stem, rest, "-o", tmp_path / "set", "--mix", song, repairer=FakeRepairer())
    assert "including the coding noise of this lossy mix" in result.out


def test_analysis_and_comparison_correct_the_offset_too(make_audio: Callable[..., Path], run_cli: Callable) -> None:
    stem = make_audio("stem.wav", levels=STEM, subtype="FLOAT")
    other = make_audio("other.wav", levels=0.9 * STEM, subtype="FLOAT")
    songs = [make_audio(f"song{n}.wav", levels=shifted(STEM + REST, n), subtype="FLOAT") for n in (0, 1105)]
    straight, moved = (analyse_pair(StemAndMix.open(stem, song)) for song in songs)
    assert moved.mask_score == pytest.approx(straight.mask_score, abs=1e-6)
    found = [compare_files(stem, other, mix=song, brief=True) for song in songs]
    assert [(row.name, row.before, row.after) for row in found[0].rows] == [
        (row.name, pytest.approx(row.before, abs=1e-6), pytest.approx(row.after, abs=1e-6)) for row in found[1].rows
    ]
    note = "mix starts 25.1 ms (1105 samples) before the stem: corrected"
    assert [comparison.notes for comparison in found] == [(), (note,)]
    for command in (["analyze", stem], ["compare", stem, other]):
        assert f"Note: stem.wav: {note}" in run_cli(*command, "--mix", songs[1]).err


@settings(max_examples=20, deadline=None)
@given(offset=st.integers(-3000, 200_000), sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=4))
def test_a_mix_reader_starts_at_any_offset(
    tmp_path_factory: pytest.TempPathFactory, offset: int, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("offset") / "song.wav"
    levels = 0.5 * np.random.default_rng(5).standard_normal((2, 140_000)).clip(-1, 1).astype(np.float32)
    soundfile.write(path, levels.T, RATE, subtype="FLOAT")
    reader = MixReader(probe(path), TimeMap.constant(offset))
    found = np.concatenate([reader.take(size) for size in sizes], axis=1)
    wanted = np.pad(levels[:, max(offset, 0) :], ((0, 0), (max(-offset, 0), found.shape[1])))[:, : found.shape[1]]
    np.testing.assert_array_equal(found, wanted)
