"""Measured programs run in processes of their own, with the environment that a user has."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Variables that limit the threads of OpenMP and of NumPy's BLAS, or say how long those threads spin.
THREAD_VARIABLES = frozenset({
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_WAIT_POLICY", "OMP_DYNAMIC", "GOMP_SPINCOUNT", "KMP_BLOCKTIME",
    "OPENBLAS_NUM_THREADS", "OPENBLAS_DEFAULT_NUM_THREADS", "OPENBLAS_THREAD_TIMEOUT", "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS", "MKL_DYNAMIC", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
})  # fmt: skip

# Runs a program and prints a JSON list: wall seconds, CPU seconds, peak memory as getrusage gives it, what it printed.
# It is a process of its own because a child's peak memory starts at that of the process it was forked from.
_PROBE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
wall_s = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss, done.stdout]))
sys.exit(done.returncode)
"""

_CALL = """
import importlib, json, sys
module, name, arguments = json.loads(sys.argv[1])
result = getattr(importlib.import_module(module), name)(*arguments)
print("\\n" + json.dumps(result))
"""


@dataclass(frozen=True)
class Usage:
    """What a program took. cpu_s: user and system seconds of all its threads and children; peak_mb: its largest
    resident memory; output: what it printed."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def clean_environment() -> dict[str, str]:
    """The environment without THREAD_VARIABLES: a limit set for tests would hide what a user's processes cost."""
    return {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES} | {"COLUMNS": "80"}


def run_measured(command: Sequence[str]) -> Usage:
    """Run a program to its end in a clean environment. Raises CalledProcessError if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *command], check=True, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    wall_s, cpu_s, peak, output = json.loads(done.stdout)
    return Usage(wall_s, cpu_s, peak / (2**20 if sys.platform == "darwin" else 2**10), output)


def call_in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function of a module, called in a new process with a clean environment. Arguments and result pass
    through JSON, so that tuples come back as lists. Raises CalledProcessError if it fails."""
    call = json.dumps([function.__module__, function.__name__, arguments])
    done = subprocess.run(
        [sys.executable, "-c", _CALL, call], check=True, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A program in a clean environment, killed at the end: the first line that it prints, and its process id. Raises
    RuntimeError if it prints nothing."""
    process = subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise RuntimeError(f"it printed nothing: {' '.join(command)}")
        yield line, process.pid
    finally:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system seconds that a running process has taken so far, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory that a running process holds (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
