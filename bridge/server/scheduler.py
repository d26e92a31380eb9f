"""Worker threads that give every stream its turn, one chunk at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

_LOG = logging.getLogger("stemprover.bridge")
QUIET_S = 2.0  # without urgent work, after which all threads may do the rest


class Workload(Protocol):
    """Something with work to do."""

    @property
    def urgent(self) -> bool:
        """Whether somebody listens in real time."""

    def run_chunk(self) -> bool:
        """Do one chunk's worth, in a worker thread; True if there is more. Never called twice at a time."""


class WorkerPool:
    """`threads` threads. Urgent work goes first; within each kind workloads take turns, so urgent work waits for at
    most one chunk of each other urgent workload. While there is urgent work now and then, one of two or more threads is
    kept free of the rest, since a chunk that has begun cannot be interrupted."""

    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._urgent: deque[Workload] = deque()
        self._patient: deque[Workload] = deque()
        self._patient_running = 0
        self._urgent_at = -QUIET_S
        self._closed = False
        self._known: dict[Workload, bool] = {}  # queued or running; True: asked for again meanwhile
        self._threads = [
            threading.Thread(target=self._run, name=f"stemprover-worker-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self, load: Workload) -> None:
        """There is work for it."""
        with self._changed:
            if load in self._known:
                self._known[load] = True
                return
            self._known[load] = False
            self._add(load)

    def close(self) -> None:
        """End the threads after the chunk that each is working on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _add(self, load: Workload) -> None:
        if load.urgent:
            self._urgent.append(load)
            self._urgent_at = time.monotonic()
        else:
            self._patient.append(load)
        self._changed.notify()

    def _next(self) -> tuple[Workload, bool] | None:
        """What to do now, and whether it is urgent; None: nothing yet."""
        if self._urgent:
            return self._urgent.popleft(), True
        spare = 1 if time.monotonic() - self._urgent_at < QUIET_S else 0
        if self._patient and self._patient_running < max(1, len(self._threads) - spare):
            self._patient_running += 1
            return self._patient.popleft(), False
        return None

    def _run(self) -> None:
        while True:
            with self._changed:
                while (found := self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait(QUIET_S / 4 if self._patient else None)
                if self._closed:
                    return
            load, urgent = found
            try:
                more = load.run_chunk()
            except Exception:  # one stream's failure must not take the thread from the others
                _LOG.exception("event=worker-error")
                more = False
            with self._changed:
                if not urgent:
                    self._patient_running -= 1
                if more or self._known[load]:
                    self._known[load] = False
                    self._add(load)
                else:
                    del self._known[load]
            del load, found  # not kept alive while there is nothing to do
