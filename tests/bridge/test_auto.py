"""`--preset auto`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

DEMO = Path(__file__).parents[2] / "presets" / "demo"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("separated", "truth", "song"):
        audio, rate = soundfile.read(DEMO / f"{name}.flac", dtype="int16", frames=6 * 44100)
        folder = tmp_path if name == "song" else tmp_path / "stems"
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}.wav", audio, rate)
    return tmp_path


def test_auto_repairs_what_is_faulty_and_leaves_the_rest(files: Path, run_cli: Callable) -> None:
    out = files / "out"
    arguments = ("--mix", files / "song.wav", "--preset", "auto", "--quality", "draft")
    result = run_cli("repair", files / "stems", "-o", out, *arguments)
    assert result.code == 0, result.err
    assert "separated.wav: chose " in result.err
    assert "dull-highs=" in result.err
    assert "truth.wav: nothing was found" in result.err
    before, after = (soundfile.read(folder / "separated.wav")[0] for folder in (files / "stems", out))
    assert np.abs(after - before).max() > 1e-3
    kept, same = (soundfile.read(folder / "truth.wav", dtype="int16")[0] for folder in (files / "stems", out))
    assert np.array_equal(kept, same)


def test_auto_and_a_blend_exclude_each_other(files: Path, run_cli: Callable) -> None:
    stem = files / "stems" / "truth.wav"
    result = run_cli("repair", stem, "-o", files / "out.wav", "--preset", "auto", "--blend", "bleed=1")
    assert result.code == 2
    assert "exclude each other" in result.err


def test_a_bad_file_does_not_stop_the_others(files: Path, run_cli: Callable) -> None:
    (files / "stems" / "broken.wav").write_bytes(b"RIFF")
    result = run_cli("repair", files / "stems", "-o", files / "out", "--preset", "auto", "--quality", "draft")
    assert result.code == 2
    assert "broken.wav" in result.err
    assert (files / "out" / "truth.wav").is_file()
