"""A stem and its mix, opened together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sounds import noise
from stemprover.engine.errors import AudioFileError, MixMismatchError
from stemprover.offline.pair import StemAndMix

RATE = 44100
STEM, REST = noise(2.0, RATE, seed=1), noise(2.0, RATE, seed=2)


def test_a_stem_without_a_mix(make_audio: Callable[..., Path]) -> None:
    path = make_audio("stem.wav")
    pair = StemAndMix.open(path)
    assert (pair.stem.path, pair.mix, pair.fit, pair.notes) == (path, None, None, ())
    assert pair.paths == [path]
    assert pair.open_mix() is None


def test_the_mix_is_read_in_step_with_the_stem_and_at_its_level(make_audio: Callable[..., Path]) -> None:
    stem = make_audio("stem.wav", levels=0.5 * STEM, subtype="FLOAT")
    mix = STEM.copy()
    mix[:, RATE:] += REST[:, RATE:]
    song = make_audio("song.wav", levels=-np.pad(mix, ((0, 0), (1000, 0))), subtype="FLOAT")
    pair = StemAndMix.open(stem, song)
    assert pair.paths == [stem, song]
    assert pair.fit is not None
    assert (pair.fit.time.first_offset, pair.fit.found) == (1000, True)
    reader, loud = pair.open_mix(), pair.open_mix(at_own_level=True)
    assert reader is not None
    assert loud is not None
    np.testing.assert_allclose(reader.take(2 * RATE), 0.5 * mix, atol=0.01)
    np.testing.assert_array_equal(loud.take(2 * RATE), mix)
    assert "mix starts 22.7 ms (1000 samples) before the stem and has inverted polarity" in pair.notes[0]


def test_a_mix_without_the_stem_is_not_opened(make_audio: Callable[..., Path]) -> None:
    pair = StemAndMix.open(make_audio("stem.wav", levels=STEM), make_audio("song.wav", levels=REST))
    assert pair.mix is not None
    assert pair.open_mix() is None
    assert "this looks like the rest of the song, not the mix" in pair.notes[0]
    assert pair.mix_left_out


def test_files_that_do_not_match_are_refused(make_audio: Callable[..., Path], tmp_path: Path) -> None:
    stem = make_audio("stem.wav")
    with pytest.raises(MixMismatchError, match="convert the mix to 44100 Hz"):
        StemAndMix.open(stem, make_audio("song.wav", rate=48000))
    with pytest.raises(AudioFileError, match=r"none.wav: there is no such file"):
        StemAndMix.open(stem, tmp_path / "none.wav")
    levels = STEM.copy()
    levels[1, 77] = np.nan
    bad = make_audio("bad.wav", levels=levels, subtype="FLOAT")
    for given in ((bad, make_audio("song.wav", levels=STEM)), (make_audio("stem.wav", levels=STEM), bad), (bad,)):
        with pytest.raises(AudioFileError, match=r"bad.wav has a non-finite sample .*sample 77"):
            StemAndMix.open(*given)


@pytest.mark.parametrize("channels", [(2, 2), (1, 1), (1, 2), (2, 1)])
def test_stem_and_rest_are_the_mix(make_audio: Callable[..., Path], channels: tuple[int, int]) -> None:
    stem = make_audio("stem.wav", levels=STEM[: channels[0]], subtype="FLOAT")
    rest = make_audio("rest.wav", levels=REST[: channels[1], :-9], subtype="FLOAT")
    pair = StemAndMix.open(stem, rest=rest)
    assert pair.paths == [stem, rest]
    assert (pair.notes, pair.mix_left_out) == ((), False)
    reader = pair.open_mix()
    assert reader is not None
    beside = REST[: channels[1]].copy()
    beside[:, -9:] = 0
    if channels[0] < channels[1]:
        beside = beside.mean(axis=0, keepdims=True)
    np.testing.assert_allclose(reader.take(2 * RATE), STEM[: channels[0]] + beside, atol=1e-6)


def test_a_rest_that_is_not_in_step_is_refused(make_audio: Callable[..., Path]) -> None:
    stem = make_audio("stem.wav", levels=STEM)
    with pytest.raises(MixMismatchError, match=r"use the rest of the song with the same start and end"):
        StemAndMix.open(stem, rest=make_audio("rest.wav", levels=REST[:, :-1000]))
    with pytest.raises(MixMismatchError, match=r"convert the rest of the song to 44100 Hz"):
        StemAndMix.open(stem, rest=make_audio("rest.wav", levels=REST, rate=48000))


def test_a_mix_that_is_passed_as_the_rest_is_noticed(make_audio: Callable[..., Path]) -> None:
    stem, song = make_audio("stem.wav", levels=STEM), make_audio("song.wav", levels=STEM + REST)
    assert StemAndMix.open(stem, rest=song).notes == (
        "song.wav contains this stem: if it is the mix, pass it with --mix",
    )
