"""`stemprover analyze`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
import soundfile
from places import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.engine.detect.bank import TYPES

STEM, SONG = DEMO / "separated.flac", DEMO / "song.flac"


def test_it_says_what_is_wrong_and_what_would_help(run_cli: Callable, tmp_path: Path) -> None:
    result = run_cli("analyze", STEM, "--mix", SONG)
    assert result.code == 0, result.err
    assert all(kind in result.out for kind in TYPES)
    assert "separator's mask" in result.out
    assert "--preset auto" in result.out
    assert "kHz" in result.out
    truth, rate = soundfile.read(DEMO / "truth.flac")
    soundfile.write(tmp_path / "dull.wav", sosfiltfilt(butter(10, 7000.0, fs=rate, output="sos"), truth, axis=0), rate)
    dull = run_cli("analyze", tmp_path / "dull.wav", "--mix", SONG).out
    assert "dull-highs=" in dull or "--preset dull-highs" in dull
    alone = run_cli("analyze", STEM)
    assert "Without the song" in alone.out
    assert "needs the song" in alone.out


def test_a_clean_stem_needs_nothing(run_cli: Callable) -> None:
    assert "Nothing was found" in run_cli("analyze", DEMO / "truth.flac", "--mix", SONG).out


def test_json_and_picture(run_cli: Callable, tmp_path: Path) -> None:
    figures, picture = tmp_path / "found.json", tmp_path / "found.png"
    result = run_cli("analyze", STEM, "--mix", SONG, "--json", figures, "--png", picture, "--tempo", 120)
    assert result.code == 0, result.err
    found = json.loads(figures.read_text())
    assert set(found["types"]) == set(TYPES)
    for entry in found["types"].values():
        assert len(entry["by_band"]) == len(found["band_edges_hz"]) - 1
        assert len(entry["by_second"]) == pytest.approx(found["duration_s"] / found["second_s"], abs=1)
        assert 0.0 <= entry["score"] <= 1.0
    assert set(found["blend"]) == {kind for kind, entry in found["types"].items() if entry["found"]}
    assert found["separated"] is True
    assert found["mark"] > found["separation"] > 0.4
    image = matplotlib.image.imread(picture)
    assert image.shape[0] > 600
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.1


def test_bad_input(run_cli: Callable, tmp_path: Path, make_audio: Callable) -> None:
    assert run_cli("analyze", tmp_path / "none.wav").code == 2
    stem = make_audio("stem.wav", seconds=1.0)
    assert run_cli("analyze", stem, "--mix", make_audio("song.wav", seconds=3.0)).code == 2
    before = stem.read_bytes()
    assert run_cli("analyze", stem, "--json", stem, "--overwrite").code == 2
    assert stem.read_bytes() == before
    there = tmp_path / "there.json"
    there.write_text("mine")
    assert run_cli("analyze", stem, "--json", there).code == 2
    assert there.read_text() == "mine"
    assert run_cli("analyze", stem, "--tempo", 0).code == 2
