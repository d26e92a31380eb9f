"""Several workers on this machine: the same files as without, whatever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crews import (
    CREWS,
    DEFAULTS,
    Events,
    contents,
    make_deadly,
    make_nothing,
    make_repairer,
    plan_for,
    read_until,
    run,
    setup_for,
)
from sounds import noise
from stemprover.engine.errors import OutputExistsError, StemProverError
from stemprover.engine.preset import Preset, load_preset
from stemprover.offline.batch import repair_batch
from stemprover.offline.plan import BatchJob, BatchPlan
from stemprover.offline.render import RenderReport
from stemprover.offline.workers import LocalCrew, repair_by_crew

SONGS = 8


@pytest.fixture
def stems(make_audio: Callable[..., Path], tmp_path: Path) -> Path:
    """Vocals of eight songs, each longer than the one before."""
    for number in range(SONGS):
        levels = 0.2 * noise(1.0 + 0.2 * number, 44100, seed=number)
        make_audio(f"stems/song {number}/vocals.wav", levels=levels)
    return tmp_path / "stems"


@pytest.fixture
def expected(stems: Path, tmp_path: Path) -> dict[str, bytes]:
    """What a plain loop makes of the stems."""
    preset = load_preset("general")
    assert not repair_batch(plan_for(stems, tmp_path / "plain"), (make_repairer(preset), preset), Events(EMPTY))
    return contents(tmp_path / "plain")


EMPTY = BatchPlan((), (), folder=Path("/"))


def test_two_workers_make_the_same_files_the_largest_first(
    stems: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    plan = plan_for(stems, tmp_path / "out")
    events, failures = run(plan, LocalCrew(setup_for(plan), 2))
    assert not failures
    assert contents(tmp_path / "out") == expected
    assert set(events.repairs[:2]) == {f"song {SONGS - 1}/vocals.wav", f"song {SONGS - 2}/vocals.wav"}
    assert sorted(events.repairs) == sorted(expected)
    assert (events.workers, events.providers) == ({2}, {"cpu"})
    again, failures = run(plan, LocalCrew(setup_for(plan), 2))
    assert not failures
    assert (again.repairs, sorted(again.already)) == ([], sorted(expected))


def test_a_worker_that_is_killed_takes_nothing_with_it(stems: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    plan = plan_for(stems, tmp_path / "out")
    crew = LocalCrew(setup_for(plan), 2)

    class Killer(Events):
        def repaired(self, job: BatchJob, report: RenderReport) -> None:
            super().repaired(job, report)
            if len(self.repairs) in (1, 4):
                begun = crew._all[0].begun
                assert begun is not None
                os.kill(begun.result(), signal.SIGKILL)

    events = Killer(plan)
    assert not repair_by_crew(plan, crew, events)
    assert contents(tmp_path / "out") == expected
    assert sorted(events.repairs + events.already) == sorted(expected)


def test_a_song_that_kills_its_worker_is_told_and_does_not_stop_the_others(
    stems: Path, tmp_path: Path, make_audio: Callable[..., Path]
) -> None:
    make_audio("stems/deadly.wav", channels=1)
    plan = plan_for(stems, tmp_path / "out")
    events, failures = run(plan, LocalCrew(setup_for(plan, make_deadly), 2))
    ((path, error),) = failures
    assert path == tmp_path / "stems/deadly.wav"
    assert "the worker died 3 times while it repaired this song" in str(error)
    assert len(events.repairs) == SONGS


def test_a_fault_of_the_program_is_told_for_each_stem(stems: Path, tmp_path: Path) -> None:
    plan = plan_for(stems, tmp_path / "out")
    _, failures = run(plan, LocalCrew(setup_for(plan, make_nothing), 2))
    assert sorted(path for path, _ in failures) == sorted(job.source for job in plan.jobs)
    assert {str(error).partition(";")[0] for _, error in failures} == {"internal error: RuntimeError: no such thing"}


def test_no_worker_replaces_an_input(stems: Path, tmp_path: Path) -> None:
    before = contents(stems)
    plan = plan_for(stems, stems)
    events, failures = run(plan, LocalCrew(setup_for(plan), 2))
    assert len(failures) == SONGS
    assert all(isinstance(error, OutputExistsError) for _, error in failures)
    assert (events.repairs, contents(stems)) == ([], before)


def driver(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, CREWS, *arguments]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_where_it_was(
    how: signal.Signals, stems: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    process = driver(stems, tmp_path / "out")
    first = read_until(process, 3)
    process.send_signal(how)
    process.communicate(timeout=30)
    plan = plan_for(stems, tmp_path / "out")
    events, failures = run(plan, LocalCrew(setup_for(plan), 1))
    assert not failures
    assert contents(tmp_path / "out") == expected
    assert first <= set(events.already)
    assert sorted(events.repairs + events.already) == sorted(expected)


def test_settings_reach_the_workers_with_a_preset_that_has_plugins_and_adapters(tmp_path: Path) -> None:
    import pickle

    from stemprover.engine.chain import PluginSettings

    preset = Preset(
        "mine", "Mine", "Mine.", "dull", adapters={tmp_path / "a.safetensors": 0.5},
        before=(PluginSettings("Gain", {"gain_db": -3.0}),),
    )  # fmt: skip
    copy = pickle.loads(pickle.dumps(preset))
    assert (copy.adapters, copy.before[0].parameters) == ({tmp_path / "a.safetensors": 0.5}, {"gain_db": -3.0})
    assert pickle.loads(pickle.dumps(DEFAULTS)).preset.name == "general"
    assert isinstance(pickle.loads(pickle.dumps(StemProverError("said"))), StemProverError)
