"""Tests for `stemprover analyze`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from paths import DEMO
from scipy.signal import butter, sosfiltfilt
from stemprover.engine.detect.analysis import Finding
from stemprover.engine.detect.detectors import TYPES
from stemprover.reports.analyze import describe

STEM, MIX = DEMO / "separated.flac", DEMO / "song.flac"


def test_artefacts_and_advice_are_printed(run_cli: Callable, tmp_path: Path) -> None:
    result = run_cli("analyze", STEM, "--mix", MIX)
    assert result.code == 0, result.err
    assert all(kind in result.out for kind in TYPES)
    assert "This stem looks like the output of a mask-based separator" in result.out
    assert (
        f"stemprover repair {STEM} --mix {MIX} --preset auto -o {STEM.with_name('separated-repaired.flac')}"
        in result.out
    )
    assert "kHz" in result.out
    truth, rate = soundfile.read(DEMO / "truth.flac")
    soundfile.write(tmp_path / "dull.wav", sosfiltfilt(butter(10, 7000.0, fs=rate, output="sos"), truth, axis=0), rate)
    dull = run_cli("analyze", tmp_path / "dull.wav", "--mix", MIX).out
    assert "dull-highs=" in dull or "--preset dull-highs" in dull
    filtered = sosfiltfilt(butter(10, 5000.0, fs=rate, output="sos"), truth[: 6 * rate], axis=0)
    soundfile.write(tmp_path / "duller.wav", filtered, rate)
    alone = run_cli("analyze", tmp_path / "duller.wav")
    assert "dull-highs=" in alone.out
    assert "Pass the mix" in alone.out
    alone = run_cli("analyze", STEM)
    assert "needs the mix" in alone.out
    assert alone.out.endswith("\nNothing found, but without the mix bleed cannot be detected; pass --mix.\n")


def test_a_clean_stem_needs_no_repair(run_cli: Callable) -> None:
    clean = run_cli("analyze", DEMO / "truth.flac", "--mix", MIX).out
    assert "No artefacts found" in clean
    assert "stemprover repair" not in clean


@given(score=st.floats(0, 1), threshold=st.floats(0.01, 0.9), above=st.floats(0.01, 0.5))
def test_a_bar_passes_its_middle_where_the_artefact_is_found(score: float, threshold: float, above: float) -> None:
    finding = Finding("bleed", score, threshold, threshold + above, True, 0.0, 1.0, 100.0, 1000.0)
    assert 0.5 <= finding.level <= 1.0 if finding.found else 0.0 <= finding.level <= 0.5
    words = describe(finding, 1.0)
    assert ("not found" in words or "only traces" in words) == (not finding.found)
    assert ("not found" in words) == (finding.level < 0.25)


def test_json_and_figure(run_cli: Callable, tmp_path: Path) -> None:
    report, figure = tmp_path / "report.json", tmp_path / "figure.png"
    result = run_cli("analyze", STEM, "--mix", MIX, "--json", report, "--png", figure, "--tempo", 120)
    assert result.code == 0, result.err
    content = json.loads(report.read_text())
    assert set(content["types"]) == set(TYPES)
    for entry in content["types"].values():
        assert len(entry["by_band"]) == len(content["band_edges_hz"]) - 1
        assert len(entry["by_second"]) == pytest.approx(content["duration_s"] / content["second_s"], abs=1)
        assert 0.0 <= entry["score"] <= 1.0
    assert set(content["blend"]) == {kind for kind, entry in content["types"].items() if entry["found"]}
    assert content["separated"] is True
    assert content["mask_score"] > content["separation"] > 0.4
    image = matplotlib.image.imread(figure)
    assert image.shape[0] > 600
    assert image.shape[1] > 1000
    assert image[..., :3].std() > 0.1


def test_invalid_files_and_options_are_rejected(run_cli: Callable, tmp_path: Path, make_audio: Callable) -> None:
    assert run_cli("analyze", tmp_path / "none.wav").code == 2
    stem = make_audio("stem.wav", seconds=1.0)
    assert run_cli("analyze", stem, "--mix", make_audio("mix.wav", seconds=3.0)).code == 2
    before = stem.read_bytes()
    assert run_cli("analyze", stem, "--json", stem, "--overwrite").code == 2
    assert stem.read_bytes() == before
    existing = tmp_path / "existing.json"
    existing.write_text("mine")
    assert run_cli("analyze", stem, "--json", existing).code == 2
    assert existing.read_text() == "mine"
    assert run_cli("analyze", stem, "--tempo", 0).code == 2
