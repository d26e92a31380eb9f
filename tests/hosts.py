"""Programs that tests use where they are there, and what the plug-in promises them."""

from __future__ import annotations

import os

import pytest
from stemprover.bridge.contract import latency_bound


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
