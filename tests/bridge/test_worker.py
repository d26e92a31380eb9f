"""A stream's worker: what is set before audio arrives counts from that audio on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import sound
from stemprover.bridge.osc import StreamFormat
from stemprover.bridge.server.worker import InputBlock, StreamWorker
from stemprover.engine.errors import OptionError
from stemprover.engine.live import LiveCorrectionStream
from stemprover.engine.repair import Repairer

RATE = 44100


def ignore(*_: Any) -> None:
    """For calls that no test is interested in."""


def make_worker(bundle: Path) -> tuple[StreamWorker, LiveCorrectionStream]:
    model = Repairer(bundle=bundle).correction_stream()
    corrections = LiveCorrectionStream(model.timing, RATE, 2, False, chunk_frames=4)
    corrections.begin(model, 1.0)
    worker = StreamWorker(
        StreamFormat(RATE, 8192, 2, 0), corrections, lambda act, *args: act(*args), ignore, ignore, ignore, ignore
    )
    worker.held = False
    return worker, corrections


def correction_of(worker: StreamWorker) -> np.ndarray:
    while worker.run_chunk():
        pass
    parts = []
    while (result := worker.take()) is not None:
        parts.append(result.correction)
    return np.concatenate(parts, axis=1)


def test_a_role_set_while_the_worker_is_busy_counts_for_the_audio_sent_after_it(lively_bundle: Path) -> None:
    """A client sets the role and sends audio while the worker makes an earlier call, such as the reset of a flush."""
    stem = sound(1.0)
    expected, corrections = make_worker(lively_bundle)
    corrections.role = "bass"
    expected.feed(InputBlock(stem.shape[1], live=False, stem=stem))
    worker, _ = make_worker(lively_bundle)

    def busy(_: LiveCorrectionStream) -> None:
        worker.set_role("bass")
        worker.feed(InputBlock(stem.shape[1], live=False, stem=stem))

    worker.call_before_next_chunk(busy, ignore)
    found = correction_of(worker)
    assert np.abs(found).max() > 1e-3
    assert np.array_equal(found, correction_of(expected))


def test_a_call_that_fails_hands_on_its_error_and_the_next_call_is_made(lively_bundle: Path) -> None:
    worker, _ = make_worker(lively_bundle)
    found: list[object] = []
    worker.call_before_next_chunk(lambda corrections: corrections.swap(None, 2.0), found.append)
    worker.call_before_next_chunk(lambda corrections: corrections.channels, found.append)
    assert not worker.run_chunk()
    assert isinstance(found[0], OptionError)
    assert found[1:] == [2]


@pytest.mark.parametrize("resets", [1, 2])
def test_a_reset_drops_the_audio_before_it_but_not_the_audio_after_it(lively_bundle: Path, resets: int) -> None:
    stem = sound(1.0)
    expected, _ = make_worker(lively_bundle)
    expected.feed(InputBlock(stem.shape[1], live=False, stem=stem))
    worker, _ = make_worker(lively_bundle)
    for _ in range(resets):
        worker.feed(InputBlock(9000, live=False, stem=sound(9000 / RATE, seed=4)))
        worker.reset(ignore)
    worker.feed(InputBlock(stem.shape[1], live=False, stem=stem))
    assert np.array_equal(correction_of(worker), correction_of(expected))
