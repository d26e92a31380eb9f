"""The order in which worker threads serve their workloads."""

from __future__ import annotations

import threading
import time

import pytest
from stemprover.bridge.server.scheduler import WorkerPool


class Load:
    """A workload of `chunks` chunks, each of which waits for `go`; adds its name to `done` after each."""

    def __init__(self, name: str, chunks: int, done: list[str], *, urgent: bool, go: threading.Event) -> None:
        self.name, self.chunks, self.done, self.urgent, self.go = name, chunks, done, urgent, go
        self.begun = threading.Event()

    def run_chunk(self) -> bool:
        self.begun.set()
        self.go.wait(5.0)
        self.done.append(self.name)
        self.chunks -= 1
        return self.chunks > 0


@pytest.fixture
def done() -> list[str]:
    return []


def test_urgent_work_goes_first_and_workloads_take_turns(done: list[str]) -> None:
    workers, closed, go = WorkerPool(1), threading.Event(), threading.Event()
    go.set()
    first = Load("first", 1, done, urgent=False, go=closed)
    workers.wake(first)
    assert first.begun.wait(5.0)
    for name, urgent in (("patient", False), ("a", True), ("b", True)):
        workers.wake(Load(name, 2, done, urgent=urgent, go=go))
    closed.set()
    deadline = time.monotonic() + 5.0
    while len(done) < 7 and time.monotonic() < deadline:
        time.sleep(0.005)
    workers.close()
    assert done == ["first", "a", "b", "a", "b", "patient", "patient"]


def test_patient_work_leaves_one_thread_free_for_urgent_work(done: list[str]) -> None:
    workers, closed, go = WorkerPool(2), threading.Event(), threading.Event()
    go.set()
    workers.wake(Load("before", 1, done, urgent=True, go=go))
    patient = [Load(f"patient {i}", 1, done, urgent=False, go=closed) for i in range(3)]
    for load in patient:
        workers.wake(load)
    assert patient[0].begun.wait(5.0)
    urgent = Load("urgent", 1, done, urgent=True, go=go)
    workers.wake(urgent)
    assert urgent.begun.wait(1.0), "one thread must be free"
    assert not patient[1].begun.is_set()
    assert patient[1].begun.wait(5.0), "after a while without urgent work, all threads do the rest"
    closed.set()
    workers.close()


def test_a_workload_that_fails_does_not_affect_others(done: list[str]) -> None:
    workers, go = WorkerPool(1), threading.Event()
    go.set()
    broken = Load("broken", 1, done, urgent=True, go=go)
    broken.done = None  # type: ignore[assignment]
    workers.wake(broken)
    after = Load("after", 1, done, urgent=True, go=go)
    workers.wake(after)
    deadline = time.monotonic() + 5.0
    while not done and time.monotonic() < deadline:
        time.sleep(0.005)
    workers.close()
    assert done == ["after"]
