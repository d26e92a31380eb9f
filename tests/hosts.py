"""Programs that tests use where they are there, and what the plug-in promises them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from fakes import FakeModelRepairer
from stemprover.engine.latency import latency_bound

Load = Callable[..., Any]
TAIL = 128  # samples: the change is faded in and out where the sound comes out of silence or ends in it
IDENTITY, TWICE = FakeModelRepairer(), FakeModelRepairer({"general": 1.0, "bleed": 2.0})


def latency(rate: int) -> int:
    """The plug-in's, in samples, as docs/plugin.md has it."""
    return latency_bound(rate) + 4096 * -(-rate // 48000)


def needs(found: bool, what: str) -> None:
    """Missing is a failure where `make test` could install it (STEMPROVER_HOSTS says so), and a skip elsewhere."""
    if found:
        return
    if os.environ.get("STEMPROVER_HOSTS") == "required":
        pytest.fail(f"{what} is missing; run: make plugin hosts")
    pytest.skip(f"no {what}")


def stream_through(plugin: Any, blocks: Iterable[np.ndarray], rate: int, size: int) -> np.ndarray:
    """Block by block, as a host plays; what comes out is put in its place beside what went in. (pedalboard cuts off
    less than the latency in this mode: it counts what it sent through while it loaded the plug-in.)"""
    parts, given = [], 0
    for block in blocks:
        parts.append(plugin.process(block, rate, buffer_size=size, reset=False))
        given += block.shape[1]
    out = np.concatenate(parts, axis=1)
    return out[:, latency(rate) - (given - out.shape[1]) :]
