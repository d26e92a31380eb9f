"""Workers on a Ray cluster (`pip install "stemprover[cluster]"`): one actor for each CPU that the cluster has free.

Ray starts the actors where there is room, keeps their models loaded, and says when a worker or its machine is gone. All
machines must see the files under the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..engine.errors import OptionError, StemProverError
from .workers import MOST_ATTEMPTS, POLL_S, Event, SongTask, SongWorker, WorkerSetup

LOCAL = "local"  # a Ray of our own on this machine
REACH_S = 5.0
GPU_SHARE = 0.5  # of a card for each worker, with --device cuda


class _Actor:
    """What Ray runs in a worker process."""

    def __init__(self, setup: WorkerSetup, seen: Path | None) -> None:
        self._worker = SongWorker(setup, f"{socket.gethostname()}-{os.getpid()}")
        self._seen = seen

    def problem(self) -> str:
        """Why this machine cannot take part, or ""."""
        if self._seen is None or self._seen.exists():
            return ""
        return f"{socket.gethostname()} cannot see {self._seen}, so it takes no part"

    def repair(self, task: SongTask) -> list[Event]:
        """As `SongWorker.repair`."""
        return self._worker.repair(task)


class RayCrew:
    """Actors on a cluster. address: auto (this machine's), ray://HOST:PORT, or local for one that ends with the run.
    workers: as many; as the cluster has CPUs if None. gpu: each worker needs a share of a card. seen: a file that every
    machine must see, if there is one. warn: called with a line about a machine that cannot take part. Raises
    OptionError."""

    def __init__(
        self, setup: WorkerSetup, address: str, workers: int | None, *, gpu: bool, seen: Path | None,
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        try:
            import ray
        except ModuleNotFoundError as error:
            raise OptionError(
                "--cluster needs Ray, which is not installed; run: pip install '.[cluster]' in the source folder"
            ) from error
        from ray.exceptions import RayActorError

        self.died: tuple[type[Exception], ...] = (RayActorError,)
        self._ray, self._setup, self._wanted, self._seen, self._warn = ray, setup, workers, seen, warn
        self._began = not ray.is_initialized()
        if self._began:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of our own reports to nobody
            try:
                _check_reachable(address)
                ray.init(
                    address, include_dashboard=False if address == LOCAL else None,
                    log_to_driver=False, logging_level=logging.ERROR,
                )  # fmt: skip
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                hint = "start one with: ray start --head"
                if address.startswith("ray://") and "RAY_AUTH_MODE" not in os.environ:
                    hint += ", or set RAY_AUTH_MODE=token if it wants one"
                raise OptionError(f"--cluster {address}: no Ray cluster answers ({reason}); {hint}") from error
        self._actor: Any = ray.remote(_Actor).options(num_cpus=1, num_gpus=GPU_SHARE if gpu else 0)
        self._starting: dict[Any, Any] = {}  # by the reference to what `problem` will return
        self._idle: list[Any] = []
        self._busy = 0
        self._blind: list[Any] = []  # these do not see the files; they keep their CPU, so that no other starts there
        self._failed = 0  # starts since the last that went well
        self._looked_s = -POLL_S

    @property
    def size(self) -> int:
        """As in `Crew`."""
        return len(self._idle) + self._busy

    def take(self) -> Any | None:
        """As in `Crew`. Raises StemProverError if no machine can take part."""
        if time.monotonic() - self._looked_s >= POLL_S:
            self._looked_s = time.monotonic()
            self._look()
        return self._idle.pop() if self._idle else None

    def _look(self) -> None:
        """Take in the workers that are ready, and start more where there is room."""
        for reference in [one for one in self._starting if self._ray.wait([one], timeout=0)[0]]:
            actor = self._starting.pop(reference)
            try:
                problem = self._ray.get(reference)
            except self.died as error:
                self._failed += 1
                if self._failed >= MOST_ATTEMPTS and not self.size:
                    raise StemProverError(f"no worker starts on this cluster: {_last_line(error)}") from error
                continue
            self._failed = 0
            if problem:
                self._warn(problem)
                self._blind.append(actor)
            else:
                self._idle.append(actor)
        wanted = self._wanted or int(self._ray.cluster_resources().get("CPU", 0))
        if self._blind and len(self._blind) >= wanted:
            raise StemProverError("no machine of the cluster sees the files; use a folder that all of them share")
        for _ in range(wanted - self.size - len(self._starting) - len(self._blind)):
            actor = self._actor.remote(self._setup, self._seen)
            self._starting[actor.problem.remote()] = actor

    def start(self, worker: Any, task: SongTask) -> Future[list[Event]]:
        """As in `Crew`."""
        self._busy += 1
        future: Future[list[Event]] = worker.repair.remote(task).future()
        return future

    def finished(self, worker: Any) -> None:
        """As in `Crew`."""
        self._busy -= 1
        self._idle.append(worker)

    def lost(self, worker: Any) -> None:
        """As in `Crew`."""
        self._busy -= 1

    def close(self) -> None:
        """As in `Crew`."""
        if self._began:
            self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises OSError at once if nothing listens at HOST:PORT; Ray would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), REACH_S).close()


def _last_line(error: Exception) -> str:
    """What Ray says last, which is the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
