"""Worker threads that give each stream its turn, one chunk at a time."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Protocol

_LOG = logging.getLogger("stemprover.bridge")


class Workload(Protocol):
    """Something with work to do."""

    def turn(self) -> bool:
        """Do one chunk's worth, in a worker thread; True where there is more. Never called twice at a time."""


class Workers:
    """`threads` threads; whoever has work comes in turn, so nobody waits for more than one chunk of each of the
    others."""

    def __init__(self, threads: int) -> None:
        self._queue: queue.SimpleQueue[Workload | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._known: dict[Workload, bool] = {}  # in the queue or at work; True: asked for again meanwhile
        self._threads = [
            threading.Thread(target=self._run, name=f"stemprover-worker-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self, load: Workload) -> None:
        """There is work for it."""
        with self._lock:
            if load in self._known:
                self._known[load] = True
                return
            self._known[load] = False
        self._queue.put(load)

    def close(self) -> None:
        """Let the threads end after the turn that they are at."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _run(self) -> None:
        while (load := self._queue.get()) is not None:
            try:
                more = load.turn()
            except Exception:  # one stream's trouble must not take the thread from the others
                _LOG.exception("event=worker-error")
                more = False
            with self._lock:
                again = more or self._known[load]
                if again:
                    self._known[load] = False
                else:
                    del self._known[load]
            if again:
                self._queue.put(load)
            del load  # not kept while there is nothing to do
