"""Who gets a worker thread, and when."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from stemprover.bridge.server.scheduler import Workers
from stemprover.engine.mixer import Output


class Load:
    """So many turns, each of which waits for `go`; notes in `done` when it was served."""

    def __init__(self, name: str, turns: int, done: list[str], *, urgent: bool, go: threading.Event) -> None:
        self.name, self.turns, self.done, self.urgent, self.go = name, turns, done, urgent, go
        self.begun = threading.Event()

    def turn(self) -> bool:
        self.begun.set()
        self.go.wait(5.0)
        self.done.append(self.name)
        self.turns -= 1
        return self.turns > 0


@pytest.fixture
def done() -> list[str]:
    return []


def test_urgent_work_goes_first_and_everybody_has_a_turn(done: list[str]) -> None:
    workers, closed, go = Workers(1), threading.Event(), threading.Event()
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


def test_work_that_can_wait_leaves_a_thread_to_what_cannot(done: list[str]) -> None:
    workers, closed, go = Workers(2), threading.Event(), threading.Event()
    go.set()
    workers.wake(Load("before", 1, done, urgent=True, go=go))
    patient = [Load(f"patient {i}", 1, done, urgent=False, go=closed) for i in range(3)]
    for load in patient:
        workers.wake(load)
    assert patient[0].begun.wait(5.0)
    urgent = Load("urgent", 1, done, urgent=True, go=go)
    workers.wake(urgent)
    assert urgent.begun.wait(1.0), "one thread was free"
    assert not patient[1].begun.is_set()
    assert patient[1].begun.wait(5.0), "where nothing is urgent any more, all threads do the rest"
    closed.set()
    workers.close()


def test_turns_that_fail_harm_nobody(done: list[str]) -> None:
    workers, go = Workers(1), threading.Event()
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


@pytest.mark.parametrize("there", [0, 300, 5000])
def test_what_is_skipped_leaves_the_rest_in_its_place(there: int) -> None:
    output = Output(44100, 1, 100)
    ramp = np.arange(5000, dtype=np.float32)[None]
    output.push(ramp)
    output.push_change(1000 * ramp[:, :there], True)
    output.skip(600)
    output.push_change(1000 * ramp[:, there:], True)
    sound, _ = output.pull(1000)
    assert np.array_equal(sound[0, -500:], 1001 * ramp[0, 1000:1500])
