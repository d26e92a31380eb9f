"""A run that was stopped goes on where it was: finished files are skipped, and only those."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from hypothesis import given
from hypothesis import strategies as st
from sounds import noise
from stemprover.engine.preset import load_preset
from stemprover.offline.journal import Journal, journal_path, settings_checksum
from stemprover.offline.plan import BatchJob

RATE = 44100


class Counting(FakeRepairer):
    """Counts the files it repairs; the one with number `broken_at` fails."""

    files, broken_at = 0, -1

    def process_chunks(self, *arguments, **settings):
        self.files += 1
        if self.files == self.broken_at:
            raise KeyboardInterrupt
        return super().process_chunks(*arguments, **settings)


@pytest.fixture
def stems(make_audio: Callable[..., Path], tmp_path: Path) -> Path:
    for number, name in enumerate(("a.wav", "sub/b.flac", "c.wav")):
        make_audio(f"stems/{name}", levels=0.2 * noise(1.0, RATE, seed=number))
    return tmp_path / "stems"


@pytest.fixture
def song(stems: Path, make_audio: Callable[..., Path]) -> Path:
    """The sum of the stems."""
    return make_audio("song.wav", levels=sum(soundfile.read(path)[0].T for path in files(stems).values()))


def files(folder: Path) -> dict[str, Path]:
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file() and p.name[0] != "."}


@pytest.fixture
def repair(run_cli: Callable, tmp_path: Path, stems: Path) -> Callable:
    """Repairs the stems' folder into out/. Returns the exit code, the output and the number of files repaired."""

    def run(*options: object, gain: float = 0.9, broken_at: int = -1):
        fake = Counting(gain)
        fake.broken_at = broken_at
        arguments = ("repair", stems, "-o", tmp_path / "out", "--preset", "general", *options)
        if broken_at >= 0:
            assert run_cli(*arguments, repairer=fake).code == 130
            return None
        result = run_cli(*arguments, repairer=fake)
        return result.code, result.out, fake.files

    return run


def test_a_run_that_was_stopped_goes_on(repair: Callable, tmp_path: Path) -> None:
    repair(broken_at=2)
    assert list(files(tmp_path / "out")) == ["a.wav"]
    code, out, repaired = repair()
    assert (code, repaired) == (0, 2)
    assert out.endswith("2 repaired, 1 already done\n")
    assert f"{tmp_path}/out/a.wav: already done" in out
    assert repair()[1].endswith("0 repaired, 3 already done\n")
    assert not list((tmp_path / "out").glob(".*")), "there is nothing but results in the folder"
    assert [path.name for path in tmp_path.glob(".*")] == [".out.stemprover.jsonl"]


def test_a_folder_without_a_name_has_its_journal_inside(tmp_path: Path) -> None:
    assert journal_path(Path(".")) == Path(".stemprover.jsonl")
    assert journal_path(Path("..")) == Path("../.stemprover.jsonl")
    assert journal_path(tmp_path / "new") == tmp_path / ".new.stemprover.jsonl"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / ".stemprover.jsonl").touch()
    assert journal_path(tmp_path / "old") == tmp_path / "old" / ".stemprover.jsonl"


def test_a_journal_is_inside_where_nothing_can_be_written_beside_the_folder(as_plain_user: Path) -> None:
    (as_plain_user / "locked" / "out").mkdir(parents=True)
    (as_plain_user / "locked").chmod(0o555)
    assert journal_path(as_plain_user / "locked" / "out").name == ".stemprover.jsonl"


def test_overwrite_repairs_anew(repair: Callable) -> None:
    repair()
    code, out, repaired = repair("--overwrite", gain=0.5)
    assert (code, repaired) == (0, 3)
    assert out.endswith("3 of 3 repaired\n")
    assert repair(gain=0.5)[2] == 0


@pytest.mark.parametrize(
    "options", [["--wet", "0.5"], ["--quality", "best"], ["--steps", "3"], ["--preset", "bleed"], ["--no-linked"]]
)
def test_results_of_other_settings_are_not_done_and_not_replaced(
    repair: Callable, tmp_path: Path, options: list[str]
) -> None:
    repair()
    before = {name: path.read_bytes() for name, path in files(tmp_path / "out").items()}
    code, out, repaired = repair(*options)
    assert (code, repaired) == (2, 0)
    assert out.startswith("0 of 3 repaired, 3 failed")
    assert {name: path.read_bytes() for name, path in files(tmp_path / "out").items()} == before


def test_a_result_or_stem_that_was_changed_is_not_done(repair: Callable, stems: Path, tmp_path: Path) -> None:
    repair()
    out = files(tmp_path / "out")
    out["a.wav"].unlink()
    content = bytearray(out["c.wav"].read_bytes())
    content[-1] ^= 1
    out["c.wav"].write_bytes(content)
    code, text, repaired = repair()
    assert (code, repaired) == (2, 1), "the deleted one is made again, the changed one is somebody's work"
    assert out["c.wav"].read_bytes() == content
    assert "1 repaired, 1 already done, 1 failed:" in text
    shutil.copy(stems / "a.wav", stems / "sub" / "b.flac.wav")
    flac = stems / "sub" / "b.flac"
    soundfile.write(flac, soundfile.read(flac)[0][:-1], RATE)
    code, text, repaired = repair()
    assert (code, repaired) == (2, 1), "only the new stem"


def test_files_that_were_there_before_are_refused(repair: Callable, tmp_path: Path, make_audio: Callable) -> None:
    make_audio("out/a.wav")
    code, _, repaired = repair()
    assert (code, repaired) == (2, 2)


def test_times_and_names_of_the_inputs_do_not_matter(
    repair: Callable, stems: Path, tmp_path: Path, run_cli: Callable
) -> None:
    repair()
    os.utime(stems / "a.wav", (0, 0))
    shutil.copytree(stems, tmp_path / "again")
    fake = Counting()
    result = run_cli("repair", tmp_path / "again", "-o", tmp_path / "out", "--preset", "general", repairer=fake)
    assert (result.code, fake.files) == (0, 0)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]\n{}\n", b'{"output": 3}\n', b"\n\n"])
def test_a_damaged_journal_vouches_for_nothing(repair: Callable, tmp_path: Path, content: bytes) -> None:
    repair()
    journal_path(tmp_path / "out").write_bytes(content)
    assert repair()[0] == 2
    assert len(files(tmp_path / "out")) == 3


def test_a_journal_that_cannot_be_written_stops_nothing(repair: Callable, tmp_path: Path) -> None:
    journal_path(tmp_path / "out").mkdir()
    code, _, repaired = repair()
    assert (code, repaired) == (0, 3)


def test_a_set_is_summed_after_it_went_on_and_only_once(repair: Callable, song: Path, tmp_path: Path) -> None:
    fresh = repair("--mix", song)
    assert fresh[2] == 3
    assert "the 3 stems sum to the mix" in fresh[1]
    whole = {name: path.read_bytes() for name, path in files(tmp_path / "out").items()}
    total = sum(soundfile.read(path)[0] for path in files(tmp_path / "out").values())
    np.testing.assert_allclose(total, soundfile.read(song)[0], atol=1e-3)
    again = repair("--mix", song)
    assert again[2] == 0
    assert "sum to the mix" not in again[1]
    shutil.rmtree(tmp_path / "out")
    repair("--mix", song, broken_at=3)
    resumed = repair("--mix", song)
    assert resumed[2] == 1
    assert "the 3 stems sum to the mix" in resumed[1]
    assert {name: path.read_bytes() for name, path in files(tmp_path / "out").items()} == whole


def test_a_summed_set_with_a_missing_stem_is_made_again(repair: Callable, song: Path, tmp_path: Path) -> None:
    repair("--mix", song)
    whole = {name: path.read_bytes() for name, path in files(tmp_path / "out").items()}
    (tmp_path / "out" / "a.wav").unlink()
    code, _, repaired = repair("--mix", song)
    assert (code, repaired) == (0, 3), "the others were made to sum with it"
    assert {name: path.read_bytes() for name, path in files(tmp_path / "out").items()} == whole


def test_a_result_is_noted_before_it_has_its_name(tmp_path: Path, make_audio: Callable[..., Path]) -> None:
    source, target = make_audio(), tmp_path / "out" / "stem.wav"
    target.parent.mkdir()
    job, journal = BatchJob(source, target), Journal(target.parent, lambda job: "settings")
    journal.record(job, source)
    assert journal.sort([job]) == (set(), set(), set()), "the file is not there yet"
    shutil.copy(source, target)
    assert journal.sort([job]) == ({job}, set(), set())
    journal.record(job, make_audio("newer.wav", seed=1))
    assert journal.sort([job]) == ({job}, set(), set()), "the newer one never got its name"
    lines = journal_path(target.parent).read_text().splitlines()
    assert [json.loads(line)["output"] for line in lines] == ["stem.wav", "stem.wav"]


@given(wet=st.floats(0, 1), steps=st.one_of(st.none(), st.integers(1, 50)), linked=st.booleans())
def test_equal_settings_have_equal_checksums(wet: float, steps: int | None, linked: bool) -> None:
    bleed, auto = load_preset("bleed"), None
    settings = {"wet": wet, "steps": steps, "linked": linked}
    assert settings_checksum(bleed, **settings) == settings_checksum(load_preset("bleed"), **settings)
    others = [
        settings_checksum(auto, **settings), settings_checksum(load_preset("general"), **settings),
        settings_checksum(bleed, **{**settings, "linked": not linked}),
        settings_checksum(bleed, **{**settings, "wet": wet + 1}),
    ]  # fmt: skip
    assert settings_checksum(bleed, **settings) not in others
    assert len(set(others)) == 4
