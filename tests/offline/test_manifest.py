"""A batch as a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stemprover.engine.errors import OptionError, OutputExistsError
from stemprover.offline.manifest import read_manifest, write_manifest
from stemprover.offline.plan import BatchJob, BatchPlan

names = st.text(st.characters(blacklist_characters="/\\\r\n\0", blacklist_categories=("Cs", "Cc")), min_size=1).filter(
    lambda name: name == name.strip() and name not in (".", "..")
)
presets = st.sampled_from([None, "auto", "bleed", "bleed=0.5,phasiness=1"])
amounts = st.none() | st.floats(0, 1)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@example(rows=[("next\u2028line\x85.wav", 'with, "quotes".wav', None, 0.5)])
@given(
    rows=st.lists(st.tuples(names, names, st.sampled_from([None, "auto", "bleed", "bleed=0.5,phasiness=1"]), amounts))
)
def test_a_plan_is_the_same_after_it_was_written_and_read(
    suffix: str, rows: list[tuple[str, str, str | None, float | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("table")
    out = place / "out"
    jobs = [
        BatchJob(place / "stems" / stem, out / f"{n}" / stem, Path("/mixes") / mix, None, preset, wet)
        for n, (stem, mix, preset, wet) in enumerate(rows)
    ] + [BatchJob(place / "a.wav", out / "a.wav", rest=place / "rest.wav"), BatchJob(place / "b.wav", out / "b.wav")]
    write_manifest(place / f"batch{suffix}", BatchPlan(tuple(jobs), (), folder=out), overwrite=False)
    plan = read_manifest(place / f"batch{suffix}", out)
    assert plan.jobs == tuple(jobs)
    assert set(plan.inputs) == {path for job in jobs for path in (job.source, job.mix, job.rest) if path is not None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem,mix\n", "names no stems"),
        ("stem,volume\na.wav,3\n", "line 2: no column is called 'volume'"),
        ("stem,mix\n,song.wav\n", "line 2: there is no stem"),
        ("stem,mix,rest\na.wav,song.wav,rest.wav\n", "line 2: mix and rest exclude each other"),
        ("stem,preset\na.wav,blead\n", "line 2: "),
        ("stem,wet\na.wav,1.5\n", "line 2: wet 1.5: use a number from 0 to 1"),
        ("stem,wet\na.wav,much\n", "line 2: wet much: use a number from 0 to 1"),
        ("stem,output\na.wav,../a.wav\n", "line 2: output ../a.wav: use a path inside the output folder"),
        ("stem,output\na.wav,/tmp/a.wav\n", "line 2: output /tmp/a.wav: use a path inside the output folder"),
        ("stem\na.wav\nsub/a.wav\n", "would both be written to"),
        ("stem\na.wav,song.wav\n", "line 2: "),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_text(text)
    with pytest.raises(OptionError) as caught:
        read_manifest(tmp_path / "batch.csv", tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "message"), [("{", "line 1: not JSON"), ("[1]", "line 1: not an object")])
def test_a_line_that_is_no_object_is_refused(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_text(f"{line}\n")
    with pytest.raises(OptionError, match=message):
        read_manifest(tmp_path / "batch.jsonl", tmp_path / "out")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "batch.csv").write_bytes(b"stem\n\xff\xfe.wav\n")
    with pytest.raises(OptionError, match="save it as UTF-8"):
        read_manifest(tmp_path / "batch.csv", tmp_path / "out")


def test_a_table_replaces_nothing_unasked(tmp_path: Path) -> None:
    plan = BatchPlan((BatchJob(tmp_path / "a.wav", tmp_path / "out" / "a.wav"),), (), folder=tmp_path / "out")
    write_manifest(tmp_path / "batch.csv", plan, overwrite=False)
    with pytest.raises(OutputExistsError):
        write_manifest(tmp_path / "batch.csv", plan, overwrite=False)
    with pytest.raises(OptionError, match=r"\.csv or \.jsonl"):
        write_manifest(tmp_path / "batch.xlsx", plan, overwrite=False)
