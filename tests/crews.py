"""Runs a batch with several workers and a repairer without a model; also as a program, which a test can kill.

python crews.py STEMS OUT [CLUSTER]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakes import FakeRepairer
from stemprover.engine.errors import StemProverError
from stemprover.engine.preset import Preset, load_preset
from stemprover.offline.batch import BatchListener, BatchSettings
from stemprover.offline.cluster import RayCrew
from stemprover.offline.journal import JobSettings
from stemprover.offline.plan import BatchJob, BatchPlan, JobDefaults, plan_batch
from stemprover.offline.render import RenderReport
from stemprover.offline.workers import Crew, LocalCrew, WorkerSetup, repair_by_crew

CREWS = Path(__file__)
DEFAULTS = JobDefaults(load_preset("general"))


def make_repairer(preset: Preset, **options: Any) -> FakeRepairer:
    """Half of the stem, a tenth of a second for each chunk of its half a second."""
    return FakeRepairer(0.5, pause_s=0.1, chunk_samples=22050)


class Deadly(FakeRepairer):
    """Kills its process when it gets a mono file."""

    def process_chunks(self, chunks: Any, sample_rate: int, channels: int, **settings: Any) -> Any:
        if channels == 1:
            os._exit(9)
        return super().process_chunks(chunks, sample_rate, channels, **settings)


def make_deadly(preset: Preset, **options: Any) -> Deadly:
    return Deadly(0.5)


def make_nothing(preset: Preset, **options: Any) -> FakeRepairer:
    """Raises what nobody expects."""
    raise RuntimeError("no such thing")


def setup_for(plan: BatchPlan, maker: Any = make_repairer) -> WorkerSetup:
    """What workers need for a plan."""
    assert plan.folder is not None
    return WorkerSetup(maker, DEFAULTS, BatchSettings(), plan.folder, JobSettings(DEFAULTS, {}))


class Events(BatchListener):
    """Writes down what became of each stem, by its place in the output folder."""

    def __init__(self, plan: BatchPlan) -> None:
        self.folder = plan.folder
        self.repairs: list[str] = []
        self.already: list[str] = []
        self.workers = set[int]()
        self.providers = set[str]()

    def _name(self, job: BatchJob) -> str:
        assert self.folder is not None
        return job.target.relative_to(self.folder).as_posix()

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        self.repairs.append(self._name(job))
        print(f"repaired {self.repairs[-1]}", flush=True)

    def already_done(self, job: BatchJob) -> None:
        self.already.append(self._name(job))
        print(f"already {self.already[-1]}", flush=True)

    def finished(self, song: Sequence[BatchJob], workers: int = 1) -> None:
        self.workers.add(workers)

    def ran_on(self, provider: str) -> None:
        self.providers.add(provider)


def ray_crew(plan: BatchPlan, address: str, workers: int | None = None, seen: Path | None = None) -> RayCrew:
    """Workers on a cluster. seen: a file that they all must see."""
    shown = seen or plan.jobs[0].source
    return RayCrew(setup_for(plan), address, workers, gpu=False, seen=shown, warn=lambda line: print(line, flush=True))


def run(plan: BatchPlan, crew: Crew) -> tuple[Events, list[tuple[Path, StemProverError]]]:
    """Repair a plan. Returns the events and the failures."""
    events = Events(plan)
    return events, repair_by_crew(plan, crew, events)


def plan_for(stems: Path, folder: Path) -> BatchPlan:
    return plan_batch([stems], folder, is_folder=True).absolute()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav") if path.name[0] != "."
    }


def read_until(process: subprocess.Popen[str], count: int) -> set[str]:
    """The first `count` stems that it says it has repaired."""
    assert process.stdout is not None
    found = set[str]()
    while len(found) < count:
        line = process.stdout.readline()
        assert line, f"it ended after {sorted(found)}"
        what, _, name = line.strip().partition(" ")
        if what == "repaired":  # Ray may say something in between
            found.add(name)
    return found


def main(stems: str, output: str, address: str = "") -> None:
    """The program."""
    plan = plan_for(Path(stems), Path(output))
    run(plan, ray_crew(plan, address) if address else LocalCrew(setup_for(plan), 2))


if __name__ == "__main__":
    main(*sys.argv[1:])
