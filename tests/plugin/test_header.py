"""The plug-in's header with the constants that it shares with the bridge and the engine."""

from __future__ import annotations

from stemprover.bridge.plugin.header import HEADER, header_text


def test_the_committed_header_matches_the_python_constants() -> None:
    message = "run: python -m stemprover.bridge.plugin.header, then make plugin"
    assert HEADER.read_text() == header_text(), message
