"""Tests for `stemprover compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
from paths import DEMO
from stemprover.reports.compare import Row


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    signals = {
        name: soundfile.read(DEMO / f"{name}.flac", dtype="float32", frames=5 * 44100)[0]
        for name in ("separated", "truth", "song")
    }
    signals["half"] = 0.5 * (signals["separated"] + signals["truth"])
    for name, audio in signals.items():
        soundfile.write(folder / f"{name}.wav", audio, 44100, subtype="FLOAT")
    return folder


def test_half_the_error_is_six_db_better(files: Path, run_cli: Callable, tmp_path: Path) -> None:
    report, figure = tmp_path / "report.json", tmp_path / "figure.png"
    options = ("--reference", files / "truth.wav", "--mix", files / "song.wav", "--json", report, "--png", figure)
    result = run_cli("compare", files / "separated.wav", files / "half.wav", *options)
    assert result.code == 0, result.err
    measures = json.loads(report.read_text())["measures"]
    assert measures["SDR"]["after"] - measures["SDR"]["before"] == pytest.approx(20 * np.log10(2.0), abs=1e-3)
    for name in ("SI-SDR", "Phase agreement", "Group delay agreement", "Instantaneous frequency agreement"):
        assert measures[name]["after"] > measures[name]["before"], name
    for name in ("Log-spectral distance", "Multi-resolution STFT distance", "Onset error", "Detected bleed"):
        assert measures[name]["after"] < measures[name]["before"], name
    assert "better" in result.out
    image = matplotlib.image.imread(figure)
    assert image[..., :3].std() > 0.1


def test_without_the_true_stem_only_reference_free_measures_are_shown(files: Path, run_cli: Callable) -> None:
    result = run_cli("compare", files / "separated.wav", files / "truth.wav", "--mix", files / "song.wav")
    assert result.code == 0, result.err
    assert "SI-SDR" not in result.out
    assert "Detected dull-highs" in result.out
    assert "Energy not in the mix" in result.out
    assert "--reference" in result.out
    assert "better" not in result.out.replace("whether it is better", "")
    assert "worse" not in result.out


def test_without_the_true_stem_what_was_taken_and_added_is_told(
    make_audio: Callable[..., Path], run_cli: Callable, tmp_path: Path
) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32) * np.float32(0.2)
    low, high = np.stack([tone, tone]), np.stack([tone[::7][:6300].repeat(7)[:44100], tone])
    for name, audio in (("low", low), ("both", low + 0.3 * np.roll(high, 999, axis=1))):
        make_audio(f"{name}.wav", levels=audio)
    measures = {}
    for before, after in (("low", "both"), ("both", "low")):
        report = tmp_path / f"{before}.json"
        result = run_cli("compare", tmp_path / f"{before}.wav", tmp_path / f"{after}.wav", "--json", report)
        assert result.code == 0, result.err
        measures[before] = json.loads(report.read_text())["measures"]
    assert measures["low"]["Nothing added"]["after"] < measures["low"]["Nothing taken"]["after"]
    assert measures["both"]["Nothing taken"]["after"] < measures["both"]["Nothing added"]["after"]
    assert {one["better"] for one in measures["low"].values()} == {""}


def test_a_change_that_rounds_to_zero_is_neither_better_nor_worse() -> None:
    assert [Row("SI-SDR", "dB", "higher", 1.0, 1.0 + change).verdict for change in (4e-4, -4e-4, 6e-4, -6e-4)] == [
        "", "", "better", "worse",
    ]  # fmt: skip
    assert Row("Log-spectral distance", "dB", "lower", 1.0, math.nan).verdict == ""


def test_the_error_for_a_true_stem_of_another_length_names_the_true_stem(
    files: Path, run_cli: Callable, make_audio
) -> None:
    short = make_audio("short.wav", seconds=1.0)
    result = run_cli("compare", files / "separated.wav", files / "half.wav", "--reference", short)
    assert result.code == 2
    assert "use the true stem with the same start and end" in result.err


def test_files_that_do_not_match_are_rejected(files: Path, run_cli: Callable, make_audio: Callable) -> None:
    short, mono = make_audio("short.wav", seconds=1.0), make_audio("mono.wav", seconds=5.0, channels=1)
    for other in (short, mono, files / "none.wav"):
        result = run_cli("compare", files / "separated.wav", other)
        assert result.code == 2
        assert other.name in result.err


def test_mono_files_have_no_channel_errors(run_cli: Callable, make_audio: Callable) -> None:
    a, b = make_audio("a.wav", channels=1), make_audio("b.wav", channels=1, seed=1)
    result = run_cli("compare", a, b, "--reference", a)
    assert result.code == 0, result.err
    assert "Onset error" in result.out
    assert "Channel" not in result.out
    assert "nan" not in result.out
