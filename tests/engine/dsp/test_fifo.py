"""The queue of samples: any blocks in, any number of samples out, in order, and its length is exact."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemprover.engine.dsp.fifo import Fifo


def numbered(start: int, count: int) -> np.ndarray:
    """Samples (2, n) with the numbers from start on."""
    return np.arange(start, start + count, dtype=np.float32)[None].repeat(2, axis=0)


def test_the_length_counts_samples() -> None:
    fifo = Fifo()
    assert len(fifo) == 0
    fifo.push(numbered(0, 5))
    fifo.push(numbered(5, 0))
    fifo.push(numbered(5, 3))
    assert len(fifo) == 8
    assert np.array_equal(fifo.pop(6), numbered(0, 6))
    assert len(fifo) == 2
    fifo.drop(1)
    assert len(fifo) == 1
    assert np.array_equal(fifo.pop(1), numbered(7, 1))
    assert len(fifo) == 0


@pytest.mark.parametrize("take", [Fifo.pop, Fifo.drop])
def test_more_than_there_is_cannot_be_taken(take: object) -> None:
    fifo = Fifo()
    fifo.push(numbered(0, 5))
    with pytest.raises(AssertionError, match="6 of 5 samples"):
        take(fifo, 6)  # type: ignore[operator]
    assert len(fifo) == 5
    assert np.array_equal(fifo.pop(5), numbered(0, 5))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "drop"]), st.integers(0, 50)), max_size=40))
def test_samples_leave_in_order_and_the_length_is_exact(steps: list[tuple[str, int]]) -> None:
    fifo, pushed, taken = Fifo(), 0, 0
    for step, count in steps:
        if step == "push":
            fifo.push(numbered(pushed, count))
            pushed += count
        elif step == "drop":
            count = min(count, len(fifo))
            fifo.drop(count)
            taken += count
        elif count := min(count, len(fifo)):
            assert np.array_equal(fifo.pop(count), numbered(taken, count))
            taken += count
        assert len(fifo) == pushed - taken


def test_one_thread_may_push_while_another_pops() -> None:
    fifo, blocks, received = Fifo(), 3000, 0

    def push() -> None:
        for number in range(blocks):
            fifo.push(numbered(7 * number, 7))

    producer = threading.Thread(target=push)
    producer.start()
    while received < 7 * blocks:
        if count := min(len(fifo), 11):
            assert np.array_equal(fifo.pop(count), numbered(received, count))
            received += count
        elif not producer.is_alive():
            assert len(fifo) or received == 7 * blocks
    producer.join()
    assert len(fifo) == 0
