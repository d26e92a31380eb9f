"""Many files in one run."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeRepairer
from sounds import noise
from stemprover.engine.errors import OptionError, StemProverError
from stemprover.engine.mix import locate
from stemprover.engine.preset import Preset, load_preset
from stemprover.offline.auto import AutoChoice
from stemprover.offline.batch import BatchListener, BatchSettings, repair_batch
from stemprover.offline.plan import BatchJob, BatchPlan, plan_batch
from stemprover.offline.render import Progress, RenderReport
from stemprover.offline.stem_set import SetReport

RATE = 44100


class Log(BatchListener):
    """Writes down every event."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fractions: list[float] = []

    def _progress(self, what: str) -> AbstractContextManager[Progress]:
        self.events.append(what)
        return nullcontext(lambda done_s, total_s: self.fractions.append(done_s / total_s))

    def started(self, number: int, job: BatchJob) -> None:
        self.events.append(f"started {number} {job.source.name}")

    def analysing(self) -> AbstractContextManager[Progress]:
        return self._progress("analysing")

    def chose(self, job: BatchJob, preset: Preset) -> None:
        self.events.append(f"chose a preset for {job.source.name}")

    def repairing(self) -> AbstractContextManager[Progress]:
        return self._progress("repairing")

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        assert report.target == job.target
        self.events.append(f"repaired {job.source.name}")

    def failed(self, path: Path, error: StemProverError) -> None:
        self.events.append(f"failed {path.name}")

    def summing(self) -> AbstractContextManager[Progress]:
        return self._progress("summing")

    def summed(self, report: SetReport) -> None:
        self.events.append(f"summed {report.stems}")


@pytest.fixture
def song(make_audio: Callable[..., Path]) -> tuple[list[Path], Path]:
    """Two stems and their mix."""
    vocals, drums = (0.5 * noise(1.0, RATE, seed=seed) for seed in (1, 2))
    stems = [make_audio("vocals.wav", levels=vocals), make_audio("drums.wav", levels=drums)]
    return stems, make_audio("song.wav", levels=vocals + drums)


def test_a_listener_receives_all_events_in_order(song: tuple[list[Path], Path], tmp_path: Path) -> None:
    stems, mix = song
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    plan = plan_batch([*stems, tmp_path / "bad.wav"], tmp_path / "out", mix=mix)
    log = Log()
    failures = repair_batch(plan, (FakeRepairer(), load_preset("general")), log, BatchSettings(sum_to_mix=True))
    assert [path.name for path, _ in failures] == ["bad.wav"]
    assert log.events == [
        "started 0 vocals.wav", "repairing", "repaired vocals.wav",
        "started 1 drums.wav", "repairing", "repaired drums.wav",
        "started 2 bad.wav", "failed bad.wav",
    ], "and no sum if a stem failed"  # fmt: skip
    assert log.fractions.count(1.0) == 2


def test_a_set_is_summed_at_the_end(song: tuple[list[Path], Path], tmp_path: Path) -> None:
    stems, mix = song
    plan = plan_batch(stems, tmp_path / "out", mix=mix)
    log = Log()
    choice = FakeRepairer(0.9), load_preset("general")
    assert repair_batch(plan, choice, log, BatchSettings(sum_to_mix=True)) == []
    assert log.events[-2:] == ["summing", "summed 2"]


@pytest.fixture
def alignments(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules that look for a stem in a mix, one entry for each call."""
    calls: list[str] = []
    original = locate.locate

    def counted(where: str, *args: Any, **options: Any) -> Any:
        calls.append(where)
        return original(*args, **options)

    monkeypatch.setattr("stemprover.offline.proof.locate", partial(counted, "proof"))
    return calls


def test_each_file_is_aligned_once(song: tuple[list[Path], Path], tmp_path: Path, alignments: list[str]) -> None:
    stems, mix = song
    log = Log()
    choice = AutoChoice(lambda preset: FakeRepairer(0.9))
    plan = plan_batch(stems, tmp_path / "out", mix=mix)
    assert repair_batch(plan, choice, log, BatchSettings(sum_to_mix=True)) == []
    assert log.events[:4] == ["started 0 vocals.wav", "analysing", "chose a preset for vocals.wav", "repairing"]
    assert log.events[-1] == "summed 2"
    assert alignments == ["proof", "proof"]


def test_a_repair_on_the_command_line_aligns_once(
    song: tuple[list[Path], Path], tmp_path: Path, run_cli: Callable, alignments: list[str]
) -> None:
    (stem, _), mix = song
    result = run_cli("repair", stem, "-o", tmp_path / "out.wav", "--mix", mix, repairer=FakeRepairer())
    assert result.code == 0, result.err
    assert "Note: vocals.wav: " in result.err, "auto chose a preset"
    assert alignments == ["proof"]


def test_a_check_can_refuse_a_job_and_the_others_go_on(song: tuple[list[Path], Path], tmp_path: Path) -> None:
    stems, _ = song

    def refuse_vocals(job: BatchJob) -> None:
        if job.source.name == "vocals.wav":
            raise OptionError("not allowed")

    plan = plan_batch(stems, tmp_path / "out")
    choice = FakeRepairer(), load_preset("general")
    [(path, error)] = repair_batch(plan, choice, BatchListener(), check=refuse_vocals)
    assert (path, str(error)) == (stems[0], "not allowed")
    assert os.listdir(tmp_path / "out") == ["drums.wav"]


def test_a_wrong_file_type_is_reported_before_the_analysis(song: tuple[list[Path], Path], tmp_path: Path) -> None:
    (stem, _), mix = song
    log = Log()
    plan = BatchPlan((BatchJob(stem, tmp_path / "new" / "out.xyz", mix),), (stem, mix))
    [(_, error)] = repair_batch(plan, AutoChoice(lambda preset: FakeRepairer()), log)
    assert "StemProver cannot write .xyz" in str(error)
    assert log.events == ["started 0 vocals.wav", "failed vocals.wav"]
    assert not (tmp_path / "new").exists(), "and before a folder is made"
