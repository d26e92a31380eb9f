"""tools/make_results.py: tables from reports, what benchmarks printed, and a command for every missing file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

SPEC = importlib.util.spec_from_file_location("make_results", ROOT / "tools" / "make_results.py")
assert SPEC is not None
assert SPEC.loader is not None
make_results = importlib.util.module_from_spec(SPEC)
sys.modules["make_results"] = make_results  # for its dataclasses
SPEC.loader.exec_module(make_results)


def case(kind: str, gain: float, clean_sdr_db: float | None = 40.0) -> dict[str, Any]:
    measures = {
        "SI-SDR": [5.0, 5.0 + gain], "Log-spectral distance": [10.0, 8.0],
        "Level in pauses": [-50.0, -50.0 - gain] if kind.startswith("unknown") else None,
    }  # fmt: skip
    return {"name": f"{kind}/1", "kind": kind, "clean_sdr_db": clean_sdr_db, "notes": [], "measures": measures}


def write_report(folder: Path, name: str, gains: tuple[float, ...] = (-1.0, 2.0, 3.0)) -> None:
    cases = [case("separated-vocals", 0.5), case("known-bands", 0.1)]
    cases += [case("unknown-bands", gain, None if gain == 2.0 else 40.0) for gain in gains]
    (folder / name).mkdir(parents=True)
    (folder / name / "report.json").write_text(json.dumps({"cases": cases, "summaries": []}))


def sections(text: str) -> dict[str, str]:
    return {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}


def rows(section: str) -> list[list[str]]:
    """The cells of all lines of tables in a section."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]


def written(folder: Path, *arguments: str) -> dict[str, str]:
    out = folder / "results.md"
    make_results.main([str(folder), "-o", str(out), *arguments])
    return sections(out.read_text())


def test_reports_become_a_table_of_faults_for_each_repair(tmp_path: Path) -> None:
    for name in make_results.REPAIRS:
        write_report(tmp_path, name.replace(" ", "-"))
    section = written(tmp_path)["Faults and separators"]
    table = rows(section.partition("### auto")[2].partition("###")[0])
    assert [row[0] for row in table[2:]] == ["unknown-bands", "known-bands", "separated-vocals"]
    assert table[2][1:] == ["3", "5.0", "+2.00 (-1.00)", "33%", "-20.0%", "-2.0 (+1.0)", "40.0 / 40.0"]
    assert table[4][1:] == ["1", "5.0", "+0.50 (+0.50)", "0%", "-20.0%", "-", "40.0 / 40.0"], "it has no pauses"
    assert f"stemprover validate cases/test -o {tmp_path}/without-the-mix --preset general --no-mix --brief" in section


def test_printed_tables_are_included_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("Speed\n\n| a |\n| --- |\n| 1 |\n")
    section = written(tmp_path)["Speed and memory"]
    assert f"    stemprover bench > {tmp_path}/speed.md\n\nSpeed\n\n| a |\n| --- |\n| 1 |\n" in section


def test_a_section_without_its_files_names_the_commands_that_make_them(tmp_path: Path) -> None:
    write_report(tmp_path, "auto")
    section = written(tmp_path, "--cases", "mine")["Faults and separators"]
    assert "Not measured" in section
    assert f"stemprover validate mine/test -o {tmp_path}/general --preset general --brief\n" in section
    assert "--preset auto" not in section, "this one is there"
    assert not rows(section)


def test_an_incomplete_page_replaces_an_existing_one_only_if_asked_to(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("one row")
    out = tmp_path / "results.md"
    out.write_text("figures")
    with pytest.raises(SystemExit, match=r"is unchanged.*Faults and separators.*--incomplete"):
        make_results.main([str(tmp_path), "-o", str(out)])
    assert out.read_text() == "figures"
    assert "one row" in written(tmp_path, "--incomplete")["Speed and memory"]


def test_run_makes_what_is_missing_and_keeps_no_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurements = (
        make_results.Measurement("One", "It prints.", {"one": make_results.prints("one", "python -c print(42)")}),
        make_results.Measurement("Two", "It fails.", {"two": make_results.prints("two", "python -c 1/0")}),
        make_results.Measurement("Three", "It needs songs.", {"three": make_results.prints("three", "false {songs}")}),
    )
    monkeypatch.setattr(make_results, "MEASUREMENTS", measurements)
    with pytest.raises(SystemExit, match=r"(?s)failed.*python -c 1/0 > .*two\.md"):
        make_results.main([str(tmp_path), "--run", "-o", str(tmp_path / "results.md")])
    found = sections((tmp_path / "results.md").read_text())
    assert found["One"].rstrip().endswith("42")
    assert "Not measured" in found["Two"]
    assert "false FOLDER_OF_SONGS" in found["Three"], "it is not run without songs"
    assert not list(tmp_path.glob("*.part"))
    assert not (tmp_path / "two.md").exists()


def test_commands_on_the_page_name_programs_that_exist() -> None:
    for measurement in make_results.MEASUREMENTS:
        for _, command in measurement.inputs.values():
            words = command.split()
            if words[:2] == ["python", "-m"]:
                assert (ROOT / Path(*words[2].split(".")[1:]).with_suffix(".py")).is_file(), command
            elif words[0] == "python":
                assert (ROOT / words[1]).is_file(), command
            else:
                assert words[:2] in (["stemprover", "validate"], ["stemprover", "bench"]), command
