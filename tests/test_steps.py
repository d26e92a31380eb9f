"""The benchmark of the sampler's steps: which cases it takes, and that its figures are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.benchmarks.steps import main, measured, spread
from stemprover.bridge.validate import Case, find_cases
from stemprover.engine.repair import Repairer


def case(name: str, kind: str) -> Case:
    return Case(name, kind, Path("t"), Path("d"), None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(2):
        place = tmp_path / "bleed" / f"{n}"
        place.mkdir(parents=True)
        truth, rest = 0.1 * rng.standard_normal((2, 26_460, 2))
        for name, sound in (("truth", truth), ("degraded", truth + 0.3 * rest), ("mix", truth + rest)):
            soundfile.write(place / f"{name}.wav", sound, 44100, subtype="FLOAT")
    return tmp_path


def test_cases_are_spread_evenly_over_each_kind() -> None:
    cases = [case(f"a{n}", "a") for n in range(9)] + [case("b", "b")]
    assert [one.name for one in spread(cases, 3)] == ["a0", "a4", "a8", "b"]


def test_a_model_that_does_nothing_gains_nothing(untrained_bundle: Path, folder: Path) -> None:
    repairer = Repairer(bundle=untrained_bundle, jobs=1)
    gain, distance, clean, took = measured(repairer, find_cases(folder)[0], with_mix=True)
    assert (gain, distance) == (0.0, 0.0)
    assert clean == np.inf
    assert took > 0.0


def test_the_table_has_a_row_for_each_number_of_steps(
    lively_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(folder), "--cases", "1", "--steps", "1", "2", "--model", str(lively_bundle), "--no-mix"])
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row for row in rows if row] == ["1", "1", "2", "2"]
