"""`repair` of a full set of stems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from models import sound


def rest_db(song: Path, stems: list[Path]) -> float:
    mix = soundfile.read(song)[0]
    rest = mix - sum(soundfile.read(stem)[0] for stem in stems)
    return float(10 * np.log10((rest**2).sum() / (mix**2).sum() + 1e-20))


@pytest.fixture
def stems(make_audio: Callable[..., Path]) -> tuple[list[Path], Path]:
    """Three stems whose sum is the song but for a little, and the song."""
    sounds = [0.3 * sound(1.0, 44100, seed=seed) for seed in (1, 2, 3)]
    paths = [
        make_audio(f"in/{name}.wav", levels=levels, subtype="PCM_24")
        for name, levels in zip(("vocals", "drums", "other"), sounds, strict=True)
    ]
    song = make_audio("song.wav", levels=sum(sounds) + 0.01 * sound(1.0, 44100, seed=9), subtype="PCM_24")
    return paths, song


def test_repaired_stems_sum_to_the_song(run_cli, stems, tmp_path: Path) -> None:
    paths, song = stems
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0, found.err
    made = [out / path.name for path in paths]
    assert rest_db(song, made) < -60
    assert "3 stems sum to the song" in found.out
    assert {path.name for path in out.iterdir()} == {"drums.wav", "other.wav", "vocals.wav"}, "nothing else is left"
    assert soundfile.info(made[0]).subtype == "PCM_24"
    left = run_cli("repair", *paths, "-o", tmp_path / "apart", "--mix", song, "--no-sum", repairer=FakeRepairer(0.9))
    assert left.code == 0
    assert rest_db(song, [tmp_path / "apart" / path.name for path in paths]) > -30


def test_a_missing_stem_is_told_and_the_rest_is_repaired_one_by_one(run_cli, stems, tmp_path: Path) -> None:
    paths, song = stems
    out = tmp_path / "out"
    found = run_cli("repair", *paths[:2], "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0
    assert "lack a part of the song" in found.out
    wanted = 0.9 * soundfile.read(paths[0])[0]
    assert soundfile.read(out / "vocals.wav")[0] == pytest.approx(wanted, abs=1e-6)


def test_files_of_other_lengths_are_no_set(run_cli, stems, make_audio, tmp_path: Path) -> None:
    paths, song = stems
    short = make_audio("in/short.wav", levels=0.1 * sound(0.9, 44100, seed=4))
    found = run_cli("repair", *paths, short, "-o", tmp_path / "out", "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 0
    assert "sum to the song" not in found.out


def test_where_the_sum_cannot_be_written_the_repaired_stems_stay(
    run_cli, stems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, song = stems
    monkeypatch.setattr("shutil.copymode", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    out = tmp_path / "out"
    found = run_cli("repair", *paths, "-o", out, "--mix", song, repairer=FakeRepairer(0.9))
    assert found.code == 1
    assert "do not sum to the song" in found.err
    assert soundfile.read(out / "drums.wav")[0] == pytest.approx(0.9 * soundfile.read(paths[1])[0], abs=1e-6)
