"""What the plug-in's tests share: required programs, the plug-in's latency, and playing audio through it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from fakes import FakeModelRepairer
from stemprover.engine.latency import latency_bound

Load = Callable[..., Any]
TAIL = 128  # samples over which the correction is faded in after silence and out before it
IDENTITY, TWICE = FakeModelRepairer(), FakeModelRepairer({"general": 1.0, "bleed": 2.0})


def latency(rate: int) -> int:
    """The plug-in's latency in samples, as docs/plugin.md states it."""
    return latency_bound(rate) + 4096 * -(-rate // 48000)


def needs(found: bool, what: str) -> None:
    """Skips the test if `what` was not found, or fails it if `make test` could have installed it (STEMPROVER_HOSTS)."""
    if found:
        return
    if os.environ.get("STEMPROVER_HOSTS") == "required":
        pytest.fail(f"{what} is missing; run: make plugin hosts")
    pytest.skip(f"no {what}")


def stream_through(plugin: Any, blocks: Iterable[np.ndarray], rate: int, size: int) -> np.ndarray:
    """Plays blocks as a host does and returns the output aligned with the input. (In this mode pedalboard removes less
    than the latency, because it counts the samples it sent while loading the plug-in.)"""
    parts, sent = [], 0
    for block in blocks:
        parts.append(plugin.process(block, rate, buffer_size=size, reset=False))
        sent += block.shape[1]
    out = np.concatenate(parts, axis=1)
    return out[:, latency(rate) - (sent - out.shape[1]) :]
