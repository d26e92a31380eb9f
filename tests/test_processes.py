"""Measured programs: their CPU seconds and memory, and an environment without limits on threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from stemprover.benchmarks.processes import (
    call_in_process,
    clean_environment,
    cpu_seconds,
    resident_mb,
    run_measured,
    running,
)
from stemprover.benchmarks.table import markdown_table

BUSY = "import time\nwhile time.process_time() < {seconds}: pass\nprint('done')"


def environment_of_a_process() -> dict[str, str]:
    return dict(os.environ)


def test_cpu_seconds_differ_from_wall_seconds_and_memory_is_the_programs_own() -> None:
    ballast = bytearray(300_000_000)
    busy = run_measured([sys.executable, "-c", BUSY.format(seconds=0.3)])
    idle = run_measured([sys.executable, "-c", "import time; time.sleep(0.6)"])
    assert 0.3 <= busy.cpu_s < 0.6
    assert busy.wall_s >= 0.3
    assert busy.output == "done\n"
    assert idle.wall_s >= 0.6
    assert idle.cpu_s < 0.3
    assert 2 < busy.peak_mb < 200, f"without the {len(ballast)} bytes of the process that started it"
    with pytest.raises(subprocess.CalledProcessError):
        run_measured([sys.executable, "-c", "raise SystemExit(3)"])


def test_no_limit_on_threads_reaches_a_measured_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("STEMPROVER_MARK", "kept")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    environments = [clean_environment(), call_in_process(environment_of_a_process)]
    script = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
    environments.append(json.loads(run_measured([sys.executable, "-c", script]).output))
    for environment in environments:
        assert not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} & set(environment)
        assert environment["STEMPROVER_MARK"] == "kept"


def test_a_running_process_is_measured_and_ended() -> None:
    script = f"print('ready', flush=True)\n{BUSY.format(seconds=0.2)}\nimport time; time.sleep(60)"
    with running([sys.executable, "-c", script]) as (line, pid):
        assert line == "ready\n"
        deadline = time.monotonic() + 20
        while cpu_seconds(pid) < 0.15 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert cpu_seconds(pid) >= 0.15, "0.2 s, in steps of the clock of 10 ms"
        assert 2 < resident_mb(pid) < 200
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="printed nothing"), running([sys.executable, "-c", "pass"]):
        pass


def test_a_table_is_padded_markdown() -> None:
    assert markdown_table(["a", "wide head"], [["long cell", "1"]]).splitlines() == [
        "| a         | wide head |",
        "| --------- | --------- |",
        "| long cell | 1         |",
    ]
