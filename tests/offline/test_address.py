"""Stems, mixes and results that are not on a file system of this machine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from crews import Events, run, setup_for
from fakes import FakeRepairer
from hypothesis import given
from hypothesis import strategies as st
from sounds import noise
from stemprover.engine.errors import OptionError, OutputExistsError, StemProverError
from stemprover.engine.preset import load_preset
from stemprover.offline.address import Address, is_address, place
from stemprover.offline.batch import BatchSettings, repair_batch
from stemprover.offline.journal import JobSettings, open_journal
from stemprover.offline.manifest import read_manifest, write_manifest
from stemprover.offline.plan import BatchPlan, JobDefaults
from stemprover.offline.workers import LocalCrew, song_tasks

RATE = 44100
NAMES = ("vocals", "drums")
word = st.text(st.characters(whitelist_categories=("L", "Nd"), whitelist_characters=" -_."), min_size=1).filter(
    lambda text: text not in (".", "..")
)


@given(scheme=st.sampled_from(["s3", "gs", "smb", "memory"]), words=st.lists(word, min_size=1))
def test_an_address_stays_the_same(scheme: str, words: list[str]) -> None:
    text = f"{scheme}://{'/'.join(words)}"
    found = place(text, Path("/somewhere"))
    assert isinstance(found, Address)
    assert (str(found), str(pickle.loads(pickle.dumps(found)))) == (text, text)
    assert str(found / "a.wav") == f"{text}/a.wav"
    assert (found / "a.wav").parent == found == found.absolute()
    assert (found / "sub" / "a.wav").relative_to(found).as_posix() == "sub/a.wav"
    assert is_address(str(Path(text))), "a command line's path has lost a slash"


@pytest.mark.parametrize("text", ["a.wav", "/a/b.wav", "C:/a.wav", "file:///a/b.wav", "12: noon/a.wav", "a:b.wav"])
def test_other_paths_are_none(text: str) -> None:
    assert not isinstance(place(text), Address)
    assert place("file:///a/b.wav", Path("/c")) == Path("/a/b.wav")


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """What lies at memory://."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def table(bucket: fsspec.AbstractFileSystem, tmp_path: Path, make_audio: Callable[..., Path]) -> Path:
    """Two songs of two stems each and their mixes, all at addresses, and a stem that is missing."""
    lines = ["stem,mix,output"]
    for song in range(2):
        stems = [0.2 * noise(1.0, RATE, seed=10 * song + n) for n in range(2)]
        for name, levels in [*zip(NAMES, stems, strict=True), ("mix", np.sum(stems, axis=0))]:
            bucket.put_file(str(make_audio("part.wav", levels=levels)), f"/in/song {song}/{name}.wav")
        lines += [f"memory://in/song {song}/{n}.wav,memory://in/song {song}/mix.wav,{song}/{n}.wav" for n in NAMES]
    (tmp_path / "part.wav").unlink()
    path = tmp_path / "batch.csv"
    path.write_text("\n".join([*lines, "memory://in/missing.wav,,missing.wav"]) + "\n")
    return path


def repair(plan: BatchPlan, gain: float = 0.5, **settings: bool) -> tuple[Events, list[tuple[Path, StemProverError]]]:
    """Repair a plan in this process."""
    preset, events = load_preset("general"), Events(plan)
    assert plan.folder is not None
    journal = open_journal(plan.folder, JobSettings(JobDefaults(preset), {"gain": gain}))
    choice = FakeRepairer(gain), preset
    return events, repair_batch(plan, choice, events, BatchSettings(**settings), journal=journal)


def stored(bucket: fsspec.AbstractFileSystem) -> dict[str, np.ndarray]:
    found = {}
    for path in bucket.find("/out"):
        if not path.rpartition("/")[2].startswith("."):
            with bucket.open(path) as file:
                found[path.removeprefix("/out/")] = soundfile.read(file)[0]
    return found


def test_results_are_those_of_files_here_and_a_run_goes_on(
    table: Path, bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    plan = read_manifest(table, place("memory://out"))
    events, failures = repair(plan, sum_to_mix=True)
    ((path, error),) = failures
    assert str(path) == "memory://in/missing.wav"
    assert str(error) == "memory://in/missing.wav does not exist; check its spelling"
    names = [f"{song}/{name}.wav" for song in range(2) for name in NAMES]
    assert (events.repairs, sorted(stored(bucket))) == (names, sorted(names))
    assert [path for path in bucket.find("/out") if path.endswith(".part")] == []

    here, _ = repair(read_manifest(table, tmp_path / "here"), sum_to_mix=True)
    assert here.repairs == names
    for name, audio in stored(bucket).items():
        np.testing.assert_array_equal(audio, soundfile.read(tmp_path / "here" / name)[0])
    mix = soundfile.read(bucket.open("/in/song 0/mix.wav"))[0]
    np.testing.assert_allclose(sum(stored(bucket)[f"0/{name}.wav"] for name in NAMES), mix, atol=2**-14)

    again, failures = repair(plan, sum_to_mix=True)
    assert (again.repairs, again.already, len(failures)) == ([], names, 1)
    bucket.rm_file("/out/1/drums.wav")
    again, _ = repair(plan, sum_to_mix=True)
    assert again.repairs in (["1/vocals.wav", "1/drums.wav"], ["1/drums.wav", "1/vocals.wav"])
    changed, failures = repair(plan, gain=0.4, sum_to_mix=True)
    assert (changed.repairs, len(failures)) == ([], 5), "the settings have changed, and nothing is replaced unasked"
    assert all(isinstance(error, OutputExistsError) for path, error in failures if "missing" not in str(path))
    changed, failures = repair(plan, gain=0.4, sum_to_mix=True, overwrite=True)
    assert (sorted(changed.repairs), len(failures)) == (sorted(names), 1)


def test_a_folder_at_an_address_is_searched(
    table: Path, bucket: fsspec.AbstractFileSystem, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    bucket.pipe_file("/in/song 0/notes.txt", b"no audio")
    bucket.pipe_file("/in/.hidden/vocals.wav", b"hidden")
    options = ("--mix", "memory://in/song 0/mix.wav", "--preset", "bleed")
    done = run_cli("repair", "memory://in/song 0", "-o", "memory://out/", *options, repairer=FakeRepairer(0.5))
    assert done.code == 0, done.err
    assert sorted(stored(bucket)) == ["drums.wav", "vocals.wav"]
    again = run_cli("repair", "memory://in/song 0", "-o", "memory://out/", *options, repairer=FakeRepairer(0.5))
    assert "0 repaired, 2 already done" in again.out
    alone = run_cli("repair", "memory://in/song 1/drums.wav", "-o", tmp_path / "one.wav", repairer=FakeRepairer(0.5))
    assert alone.code == 0, alone.err
    assert (tmp_path / "one.wav").exists()
    for more in (("--mixes", tmp_path), ("--report", "memory://in/report.html"), ("--removed", "memory://in/r.wav")):
        wrong = run_cli("repair", "memory://in/song 0", "-o", "memory://out/", *more, repairer=FakeRepairer())
        assert (wrong.code, wrong.err.count("\n")) == (2, 1)
        assert "on this machine" in wrong.err
    nothing = run_cli("repair", "memory://in/song 7", "-o", "memory://out/", repairer=FakeRepairer())
    assert "memory://in/song 7 does not exist; check its spelling" in nothing.err


def test_an_input_at_an_address_is_never_overwritten(table: Path, bucket: fsspec.AbstractFileSystem) -> None:
    plan = read_manifest(table, place("memory://in"))
    jobs = tuple(replace(job, target=job.source) for job in plan.jobs[:2])
    _, failures = repair(replace(plan, jobs=jobs), overwrite=True)
    told = [f"memory://in/song 0/{name}.wav is an input and is never overwritten" for name in NAMES]
    assert [str(error).partition(";")[0] for _, error in failures] == told
    tasks, refused = song_tasks(replace(plan, jobs=jobs))
    assert tasks == []
    assert [str(arguments[1]).partition(";")[0] for _, arguments in refused] == told


def test_a_result_that_cannot_be_stored_is_told(
    table: Path, bucket: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("quota exceeded")

    monkeypatch.setattr(type(bucket), "put_file", full)
    _, failures = repair(read_manifest(table, place("memory://out")))
    reasons = {str(error).partition(" cannot")[2] for _, error in failures}
    assert " be written: quota exceeded" in reasons
    assert len(failures) == 5
    assert stored(bucket) == {}


def test_what_fsspec_cannot_open_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nonsense://a/b.wav cannot be opened: .*nonsense") as caught:
        Address("nonsense://a/b.wav").exists()
    assert "\n" not in str(caught.value)


def test_workers_take_addresses_too(
    tmp_path: Path, make_audio: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        make_audio(f"in/{number}.wav", seconds=0.3, seed=number)
    (tmp_path / "batch.csv").write_text("stem\n" + "".join(f"local://in/{n}.wav\n" for n in range(3)))
    far, near = (read_manifest(tmp_path / "batch.csv", place(out)) for out in ("local://far", str(tmp_path / "near")))
    for plan in (far, near):
        events, failures = run(plan.absolute(), LocalCrew(setup_for(plan.absolute()), 2))
        assert (sorted(events.repairs), failures) == (["0.wav", "1.wav", "2.wav"], [])
    for number in range(3):
        assert (tmp_path / f"far/{number}.wav").read_bytes() == (tmp_path / f"near/{number}.wav").read_bytes()
    again, _ = run(far.absolute(), LocalCrew(setup_for(far.absolute()), 2))
    assert (again.repairs, sorted(again.already)) == ([], ["0.wav", "1.wav", "2.wav"])
    write_manifest(tmp_path / "again.jsonl", far, overwrite=False)
    assert read_manifest(tmp_path / "again.jsonl", place("local://far")).jobs == far.jobs
