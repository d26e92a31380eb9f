"""Workers on a Ray cluster: three real nodes on this machine, some of which die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from crews import CREWS, Events, contents, make_repairer, plan_for, ray_crew, read_until, run
from ray.cluster_utils import Cluster
from sounds import noise
from stemprover.engine.errors import OptionError, StemProverError
from stemprover.engine.preset import load_preset
from stemprover.offline.batch import repair_batch
from stemprover.offline.plan import BatchJob
from stemprover.offline.render import RenderReport
from stemprover.offline.workers import repair_by_crew

SONGS = 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes with a CPU each; their processes find the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(CREWS.parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        yield nodes
        nodes.shutdown()


@pytest.fixture
def connected(cluster: Cluster) -> Iterator[None]:
    """This process as a driver of the cluster."""
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def stems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vocals of thirty songs."""
    import soundfile

    folder = tmp_path_factory.mktemp("library") / "stems"
    for number in range(SONGS):
        path = folder / f"song {number}" / "vocals.wav"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.2 * noise(0.5 + 0.02 * number, 44100, seed=number).T, 44100)
    return folder


@pytest.fixture(scope="module")
def expected(stems: Path) -> dict[str, bytes]:
    """What a plain loop makes of the stems."""
    plan, preset = plan_for(stems, stems.parent / "plain"), load_preset("general")
    assert not repair_batch(plan, (make_repairer(preset), preset), Events(plan))
    return contents(stems.parent / "plain")


def test_a_worker_and_a_node_that_die_take_nothing_with_them(
    cluster: Cluster, connected: None, stems: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    plan = plan_for(stems, tmp_path / "out")
    crew = ray_crew(plan, "auto")
    spare = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    class Killer(Events):
        def repaired(self, job: BatchJob, report: RenderReport) -> None:
            super().repaired(job, report)
            if len(self.repairs) == 5:
                os.kill(ray.get(crew._idle[0].__ray_call__.remote(lambda actor: os.getpid())), signal.SIGKILL)
            if len(self.repairs) == 12:
                cluster.remove_node(spare, allow_graceful=False)

    events = Killer(plan)
    assert not repair_by_crew(plan, crew, events)
    assert contents(tmp_path / "out") == expected
    assert sorted(events.repairs + events.already) == sorted(expected)
    assert max(events.workers) >= 2
    assert events.providers == {"cpu"}


def test_a_driver_that_is_killed_goes_on_where_it_was(
    cluster: Cluster, stems: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    command = [sys.executable, str(CREWS), str(stems), str(tmp_path / "out"), cluster.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    first = read_until(process, 6)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        plan = plan_for(stems, tmp_path / "out")
        events, failures = run(plan, ray_crew(plan, "auto"))
    finally:
        ray.shutdown()
    assert not failures
    assert contents(tmp_path / "out") == expected
    assert first <= set(events.already)
    assert sorted(events.repairs + events.already) == sorted(expected)


def test_machines_that_do_not_see_the_files_take_no_part(
    connected: None, stems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(stems, tmp_path / "out")
    with pytest.raises(StemProverError, match="no machine of the cluster sees the files"):
        run(plan, ray_crew(plan, "auto", seen=tmp_path / "elsewhere.wav"))
    assert f"cannot see {tmp_path / 'elsewhere.wav'}, so it takes no part" in capsys.readouterr().out


def test_a_worker_that_cannot_start_is_told(connected: None, stems: Path, tmp_path: Path) -> None:
    plan = plan_for(stems, tmp_path / "out")
    crew = ray_crew(plan, "auto")
    crew._setup: Any = None
    with pytest.raises(StemProverError, match="no worker starts on this cluster: .*NoneType"):
        run(plan, crew)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "ray://nowhere.invalid:10001"])
def test_a_cluster_that_does_not_answer_is_told_in_one_line(address: str, stems: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"--cluster {address}: no Ray cluster answers"):
        ray_crew(plan_for(stems, tmp_path / "out"), address)
