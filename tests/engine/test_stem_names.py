"""Names of stems and songs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemprover.engine.errors import OptionError
from stemprover.engine.stem_names import MIX, ROLES, STEMS, check_role, redundant_stems, role_of, song_of, stem_of


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("vocals.wav", "vocals"), ("Vox.WAV", "vocals"), ("01 My Song - Lead Vocals.flac", "lead vocals"),
        ("BackingVocals_2.ogg", "backing vocals"), ("voice.wav", "vocals"), ("drums_stem.wav", "drums"),
        ("Bass Drum.wav", "drums"), ("Bass DI.wav", "bass"), ("E-Gtr.wav", "guitar"), ("bass.wav", "bass"),
        ("no_vocals.wav", "accompaniment"), ("song (Instrumental).wav", "accompaniment"), ("mixture.wav", "mix"),
        ("My Song - Full Mix.wav", "mix"), ("Electric_Piano 3.wav", "piano"), ("other.wav", "other"),
        ("1_song_(Vocals).wav", "vocals"), ("1_song_(Instrumental).wav", "accompaniment"),
        ("Song_(Vocals)_UVR-MDX-NET-Inst_HQ_3.wav", "vocals"), ("song_(No Drums)_htdemucs.wav", None),
        ("song_(Vocals)_(Instrumental)_model.wav", "accompaniment"), ("song [Guitar] (live).wav", "guitar"),
        ("guitar.wav", "guitar"), ("piano.wav", "piano"), ("Bass.wav", "bass"),
        ("kazoo.wav", None), ("17.wav", None), ("drumming up support.wav", None),
    ],
)  # fmt: skip
def test_stems_are_recognised_by_file_names(name: str, stem: str | None) -> None:
    assert stem_of(name) == stem


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vocals.wav", "vocals"), ("01 My Song - Lead Vocals.flac", "vocals"),
        ("song_(Instrumental).wav", "accompaniment"), ("percussion.wav", "drums"), ("Electric_Piano 3.wav", "keys"),
        ("E-Gtr.wav", "guitar"), ("violins.wav", "other"),
        ("mixture.wav", None), ("kazoo.wav", None),
    ],
)  # fmt: skip
def test_a_files_name_says_its_role(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_every_stem_but_the_mix_has_a_role() -> None:
    assert {role_of(f"{stem}.wav") for stem in STEMS if stem != MIX} == set(ROLES)
    assert None not in {role_of(f"{stem}.wav") for stem in STEMS if stem != MIX}
    with pytest.raises(OptionError, match="role 'kazoo' is unknown; choose vocals"):
        check_role("kazoo")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1_song_(Vocals).wav", "1_song_(Instrumental).wav", True),
        ("song_(Vocals)_model.wav", "song_(Instrumental)_model.wav", True),
        ("1_song_(Vocals).wav", "2_song_(Instrumental).wav", False),
        ("htdemucs/song/vocals.wav", "htdemucs/song/no_vocals.flac", True),
        ("htdemucs/song/vocals.wav", "htdemucs/song 2/no_vocals.wav", False),
        ("song2_vocals.wav", "song3_no_vocals.wav", False),
        ("Song - Vocals.wav", "song - Instrumental.wav", True),
    ],
)
def test_the_song_of_a_stem_is_its_folder_and_the_rest_of_its_name(one: str, other: str, same: bool) -> None:
    assert (song_of(Path(one)) == song_of(Path(other))) == same


@given(st.text())
def test_any_name_has_a_song(name: str) -> None:
    assert isinstance(song_of(Path(f"{name}.wav"))[1], str)


def test_a_stem_that_is_in_another_one_is_redundant() -> None:
    assert redundant_stems(["vocals", "drums", "bass", "other", "guitar", "piano"]) == {}
    assert redundant_stems(["vocals", "drums", "bass", "other", "accompaniment"]) == {
        "accompaniment": "same as drums, bass and other"
    }
    assert set(redundant_stems(["vocals", "lead vocals", "accompaniment", "drums"])) == {"lead vocals", "drums"}
