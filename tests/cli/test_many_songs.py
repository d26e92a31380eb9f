"""Many songs in one command, with the real model: a table, workers, a cluster of its own, and a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from crews import contents
from paths import DEMO

EXCERPT_S = 1.5


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short songs of one stem each, with their mixes, and a file that is no audio."""
    folder = tmp_path_factory.mktemp("library")
    for name, source in (("stems", "separated"), ("mixes", "song")):
        audio, rate = soundfile.read(DEMO / f"{source}.flac")
        size = round(EXCERPT_S * rate)
        for number in range(3):
            path = (
                folder / name / f"song {number}" / "vocals.wav" if name == "stems" else folder / name / f"{number}.wav"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, audio[(number + 1) * size : (number + 2) * size], rate)
    (folder / "stems" / "song 1" / "broken.wav").write_text("not audio")
    (folder / "batch.csv").write_text(
        "stem,mix,preset,wet,output\n"
        + "".join(f"stems/song {n}/vocals.wav,mixes/{n}.wav,,,song {n}/vocals.wav\n" for n in range(3))
        + "stems/song 1/broken.wav,mixes/1.wav,,,song 1/broken.wav\n"
    )
    return folder


def test_workers_a_cluster_and_a_plain_loop_make_the_same_files(library: Path, run_cli: Callable) -> None:
    table = library / "batch.csv"
    ways = {"plain": (), "workers": ("--workers", 2), "cluster": ("--cluster", "local")}
    results = {}
    for name, options in ways.items():
        done = run_cli("repair", table, "-o", library / name, "--jobs", 1, *options)
        assert done.code == 2, done.err
        assert "3 of 4 repaired, 1 failed" in done.out
        results[name] = contents(library / name)
    assert set(results["plain"]) == {f"song {n}/vocals.wav" for n in range(3)}
    assert results["plain"] == results["workers"] == results["cluster"]
    again = run_cli("repair", table, "-o", library / "cluster", "--jobs", 1, "--workers", 2)
    assert "0 repaired, 3 already done, 1 failed" in again.out


def test_a_plan_is_written_and_nothing_is_done(library: Path, run_cli: Callable) -> None:
    stems, plan = library / "stems" / "song 0", library / "plan.jsonl"
    done = run_cli("repair", stems, "-o", f"{library}/never/", "--mix", library / "mixes/0.wav", "--plan", plan)
    assert done.code == 0, done.err
    assert "1 stem; repair it with: stemprover repair" in done.out
    assert plan.read_text() == '{"stem": "stems/song 0/vocals.wav", "mix": "mixes/0.wav", "output": "vocals.wav"}\n'
    assert not (library / "never").exists()


def test_a_report_tells_what_was_found_and_done(library: Path, run_cli: Callable) -> None:
    report = library / "report.html"
    command = "repair", library / "batch.csv", "-o", library / "reported", "--workers", 2, "--report", report
    assert run_cli(*command).code == 2
    page = report.read_text()
    for text in ("Of 4 stems, ", "1 failed", "broken.wav", "is not a readable audio file", "Found before", "song 2"):
        assert text in page
    assert "://" not in page
    for address in re.findall(r'href="([^"]+)"', page):
        listening = (library / address.replace("%20", " ")).read_text()
        assert listening.count("<audio") == 2
    again = run_cli(*command)
    assert (again.code, "already exists" in again.err) == (2, True)
    assert run_cli(*command, "--overwrite").code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "one.wav", "--workers", 2), "name an output folder"),
        (("-o", "out/", "--workers", 0), "--workers"),
        (("-o", "out/", "--mixes", "mixes"), "says what belongs together"),
        (("-o", "out/", "--report", "report.pdf"), "use a name that ends with .html"),
        (("-o", "out/", "--plan", "plan.txt"), "use a name that ends with .csv or .jsonl"),
        (("-o", "out/", "--cluster", "127.0.0.1:9"), "no Ray cluster answers"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    options: tuple[str, ...], message: str, library: Path, run_cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library)
    stems = "stems/song 0/vocals.wav" if options[1] == "one.wav" else "batch.csv"
    done = run_cli("repair", stems, *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
