"""Tests for `stemprover validate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.reports.validate import bootstrap_interval, find_cases

RATE = 44100


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Three cases each of two types. The stems contain the rest of the mix at -10 dB (bleed) or -20 dB (phasiness)."""
    rng = np.random.default_rng(0)
    for kind in ("bleed", "phasiness"):
        for number in range(3):
            folder = tmp_path / "cases" / kind / f"{number:02d}"
            folder.mkdir(parents=True)
            truth, rest = 0.1 * rng.standard_normal((2, RATE, 2))
            leak = 0.3 if kind == "bleed" else 0.1
            for name, audio in (("truth", truth), ("degraded", truth + leak * rest), ("mix", truth + rest)):
                soundfile.write(folder / f"{name}.wav", audio, RATE, subtype="FLOAT")
    return tmp_path / "cases"


def test_a_repair_that_subtracts_the_mix_is_measured(cases: Path, run_cli: Callable, tmp_path: Path) -> None:
    # y - 0.1 m = 0.9 x + (leak - 0.1) r: much better for a leak of 0.1, a little better for 0.3.
    out = tmp_path / "report"
    result = run_cli("validate", cases, "-o", out, repairer=FakeRepairer(1.0, -0.1))
    assert result.code == 0, result.err
    report = json.loads((out / "report.json").read_text())
    rows = {(row["kind"], row["measure"]): row for row in report["summaries"]}
    expected = 20 * np.log10(0.3 / (0.2 / 0.9))
    assert rows["bleed", "SI-SDR"]["gain"] == pytest.approx(expected, abs=0.1)
    assert rows["bleed", "SI-SDR"]["low"] <= rows["bleed", "SI-SDR"]["gain"] <= rows["bleed", "SI-SDR"]["high"]
    assert rows["bleed", "SI-SDR"]["cases"] == 3
    assert rows["every type", "SI-SDR"]["cases"] == 6
    assert rows["phasiness", "SI-SDR"]["gain"] > 20.0
    assert rows["bleed", "Detected bleed"]["cases"] == 3
    # The true stem: x - 0.1 (x + r).
    assert report["cases"][0]["clean_sdr_db"] == pytest.approx(-10 * np.log10(0.02), abs=0.2)
    assert report["worst"][0].startswith("bleed")
    assert len(list(out.glob("worst-*.png"))) == 6
    assert "Repaired true stems match the originals at" in result.out
    assert report["harmed"] == 0.0
    page = (out / "report.html").read_text()
    assert page.count('<section class="player">') == 6
    assert page.count("<audio") == 18
    assert "bleed" in page


def test_a_repair_that_does_nothing_gains_nothing(cases: Path, run_cli: Callable, tmp_path: Path) -> None:
    result = run_cli("validate", cases / "bleed", "-o", tmp_path / "report", repairer=FakeRepairer())
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {row["kind"] for row in report["summaries"]} == {"all"}
    assert all(row["gain"] == 0.0 for row in report["summaries"])
    assert all(case["clean_sdr_db"] is None for case in report["cases"]), "unchanged samples have an infinite ratio"


def test_misaligned_and_wrong_mixes_are_reported(cases: Path, run_cli: Callable, tmp_path: Path) -> None:
    late, other = (cases / "bleed" / number / "mix.wav" for number in ("01", "02"))
    mix, _ = soundfile.read(late)
    soundfile.write(late, np.concatenate([np.zeros((100, 2)), mix[:-100]]), RATE, subtype="FLOAT")
    soundfile.write(other, 0.1 * np.random.default_rng(5).standard_normal((RATE, 2)), RATE, subtype="FLOAT")
    result = run_cli("validate", cases / "bleed", "-o", tmp_path / "report", repairer=FakeRepairer())
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    notes = {case["name"]: case["notes"] for case in report["cases"]}
    page = (tmp_path / "report" / "report.html").read_text()
    assert notes["00"] == []
    assert "100 samples" in notes["01"][0]
    assert "left out" in notes["02"][0]
    for name in ("01", "02"):
        assert f"Note: {name}: {notes[name][0]}" in " ".join(result.err.split())
        assert notes[name][0] in page


def test_a_folder_without_cases_is_an_error(tmp_path: Path, run_cli: Callable) -> None:
    assert run_cli("validate", tmp_path / "none").code == 2
    (tmp_path / "empty").mkdir()
    result = run_cli("validate", tmp_path / "empty")
    assert result.code == 2
    assert "truth.wav" in result.err


def test_find_cases_accepts_other_file_names_and_missing_mixes(cases: Path) -> None:
    (cases / "bleed" / "00" / "mix.wav").rename(cases / "bleed" / "00" / "Song.wav")
    (cases / "bleed" / "01" / "mix.wav").unlink()
    result = find_cases(cases)
    assert [case.kind for case in result] == ["bleed"] * 3 + ["phasiness"] * 3
    assert result[0].mix is not None
    assert result[0].mix.name == "Song.wav"
    assert result[1].mix is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_bootstrap_interval_contains_the_mean(values: list[float]) -> None:
    low, high = bootstrap_interval(np.array(values))
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9 or len(values) < 4
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_no_mix_and_additional_measures(cases: Path, run_cli: Callable, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = run_cli(
        "validate", cases / "bleed", "-o", out, "--no-mix", "--also", "bsseval", repairer=FakeRepairer(0.5)
    )
    assert result.code == 0, result.err
    report = json.loads((out / "report.json").read_text())
    assert "BSSEval SDR" in {row["measure"] for row in report["summaries"]}
    assert "Energy not in the mix" not in report["cases"][0]["measures"]
    assert run_cli("validate", cases, "--also", "mos").code == 2


def test_brief_gives_fewer_measures_with_the_same_values(cases: Path, run_cli: Callable, tmp_path: Path) -> None:
    reports = {}
    for name, more in (("whole", ()), ("brief", ("--brief",))):
        result = run_cli("validate", cases / "bleed", "-o", tmp_path / name, *more, repairer=FakeRepairer(0.5))
        assert result.code == 0, result.err
        reports[name] = json.loads((tmp_path / name / "report.json").read_text())["cases"][0]["measures"]
    kept = {"SI-SDR", "SDR", "Log-spectral distance", "Bleedless", "Fullness"}
    assert {name for name in reports["brief"] if not name.startswith("Detected ")} == kept
    assert all(reports["whole"][name] == values for name, values in reports["brief"].items())


def test_the_excerpt_shows_the_largest_loss(tmp_path: Path, run_cli: Callable) -> None:
    """Twenty seconds, and a repair that adds the mix, which harms the cleanest part most."""
    rng = np.random.default_rng(1)
    truth, rest = 0.1 * rng.standard_normal((2, 20 * RATE, 2))
    leak = np.full((20 * RATE, 1), 0.5)
    leak[12 * RATE : 18 * RATE] = 0.1
    (tmp_path / "one").mkdir()
    for name, audio in (("truth", truth), ("degraded", truth + leak * rest), ("mix", truth + rest)):
        soundfile.write(tmp_path / "one" / f"{name}.wav", audio, RATE, subtype="FLOAT")
    result = run_cli("validate", tmp_path / "one", "-o", tmp_path / "out", "--brief", repairer=FakeRepairer(1.0, 0.5))
    assert result.code == 0, result.err
    assert "from 0:12.500" in (tmp_path / "out" / "report.html").read_text()
