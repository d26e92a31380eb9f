"""`stemprover compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
from places import DEMO
from stemprover.reports.compare import Row


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    sounds = {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=5 * 44100)[0]
        for name in ("separated", "truth", "song")
    }
    sounds["half"] = 0.5 * (sounds["separated"] + sounds["truth"])
    for name, audio in sounds.items():
        soundfile.write(folder / f"{name}.wav", audio, 44100, subtype="FLOAT")
    return folder


def test_half_the_error_is_six_decibels_better(files: Path, run_cli: Callable, tmp_path: Path) -> None:
    figures, picture = tmp_path / "found.json", tmp_path / "found.png"
    named = ("--reference", files / "truth.wav", "--mix", files / "song.wav", "--json", figures, "--png", picture)
    result = run_cli("compare", files / "separated.wav", files / "half.wav", *named)
    assert result.code == 0, result.err
    found = json.loads(figures.read_text())["measures"]
    assert found["SDR"]["after"] - found["SDR"]["before"] == pytest.approx(20 * np.log10(2.0), abs=1e-3)
    for name in ("SI-SDR", "Phase agreement", "Group delay agreement", "Instantaneous frequency agreement"):
        assert found[name]["after"] > found[name]["before"], name
    for name in ("Log-spectral distance", "Multi-resolution STFT distance", "Onset error", "Detected bleed"):
        assert found[name]["after"] < found[name]["before"], name
    assert "better" in result.out
    image = matplotlib.image.imread(picture)
    assert image[..., :3].std() > 0.1


def test_without_the_truth_the_detectors_speak(files: Path, run_cli: Callable) -> None:
    result = run_cli("compare", files / "separated.wav", files / "truth.wav", "--mix", files / "song.wav")
    assert result.code == 0, result.err
    assert "SI-SDR" not in result.out
    assert "Detected dull-highs" in result.out
    assert "Beyond the song" in result.out
    assert "--reference" in result.out


def test_what_is_shown_as_no_change_is_neither_better_nor_worse() -> None:
    assert [Row("SI-SDR", "dB", "higher", 1.0, 1.0 + change).verdict for change in (4e-4, -4e-4, 6e-4, -6e-4)] == [
        "", "", "better", "worse",
    ]  # fmt: skip
    assert Row("Log-spectral distance", "dB", "lower", 1.0, math.nan).verdict == ""


def test_a_true_stem_of_another_length_is_not_called_a_song(files: Path, run_cli: Callable, make_audio) -> None:
    short = make_audio("short.wav", seconds=1.0)
    named = ("--reference", short)
    result = run_cli("compare", files / "separated.wav", files / "half.wav", *named)
    assert result.code == 2
    assert "give the true stem, with the same start and end" in result.err


def test_files_that_do_not_belong_together_are_refused(files: Path, run_cli: Callable, make_audio: Callable) -> None:
    short, mono = make_audio("short.wav", seconds=1.0), make_audio("mono.wav", seconds=5.0, channels=1)
    for other in (short, mono, files / "none.wav"):
        result = run_cli("compare", files / "separated.wav", other)
        assert result.code == 2
        assert other.name in result.err


def test_mono_has_no_channel_errors(run_cli: Callable, make_audio: Callable) -> None:
    a, b = make_audio("a.wav", channels=1), make_audio("b.wav", channels=1, seed=1)
    result = run_cli("compare", a, b, "--reference", a)
    assert result.code == 0, result.err
    assert "Onset error" in result.out
    assert "Channel" not in result.out
    assert "nan" not in result.out
