"""The benchmark of the sampler's steps: the cases that it chooses, and its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.benchmarks.sampler_steps import TIMES, along_the_path, main, measured, spread
from stemprover.engine.repair import Repairer
from stemprover.reports.validate import Case, find_cases


def case(name: str, kind: str) -> Case:
    return Case(name, kind, Path("t"), Path("d"), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(2):
        place = tmp_path / "noise" / f"{n}"
        place.mkdir(parents=True)
        truth, rest, hiss = 0.1 * rng.standard_normal((3, 26_460, 2))
        for name, sound in (("truth", truth), ("degraded", truth + 0.3 * hiss), ("mix", truth + rest)):
            soundfile.write(place / f"{name}.wav", sound, 44100, subtype="FLOAT")
    return tmp_path


def test_cases_are_spread_evenly_over_each_kind() -> None:
    cases = [case(f"a{n}", "a") for n in range(9)] + [case("b", "b")]
    assert [one.name for one in spread(cases, 3)] == ["a0", "a4", "a8", "b"]


def test_a_model_that_corrects_nothing_gains_nothing(untrained_bundle: Path, folder: Path) -> None:
    repairer = Repairer(bundle=untrained_bundle, jobs=1)
    gain, distance, clean, took = measured(repairer, find_cases(folder)[0], with_mix=True)
    assert (gain, distance) == (0.0, 0.0)
    assert clean == np.inf
    assert took > 0.0


def test_the_table_has_a_row_for_each_number_of_steps(
    lively_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder), "--cases", "1", "--steps", "1", "2", "--model", str(lively_bundle), "--no-mix"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["1", "1", "2", "2"]


def test_errors_of_predictions_along_the_path_are_relative_to_the_stems_error(
    untrained_bundle: Path, lively_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = find_cases(folder)[0]
    found = along_the_path(Repairer(bundle=untrained_bundle, jobs=1, restrained=False), one)
    assert {name: len(values) for name, values in found.items()} == {"end": 1, "true": 3, "noisy": 3, "own": 3}
    assert all(value == pytest.approx(0.0, abs=1e-4) for values in found.values() for value in values)
    lively = along_the_path(Repairer(bundle=lively_bundle, jobs=1, restrained=False), one)
    assert lively["end"][0] > 0.1, "random weights make it worse"
    assert lively["true"] != lively["noisy"]
    assert len(TIMES) == 3
    main([str(folder), "--cases", "1", "--path", "--model", str(untrained_bundle)])
    assert "its own first prediction" in capsys.readouterr().out
