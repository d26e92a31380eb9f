"""What can be set in a stream: one table for OSC, for discovery and for the monitor page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ...engine.repair import QUALITY_STEPS
from .stream import Stream

#: The position from which a change holds, at once or once its model is there.
Held = int | Coroutine[Any, Any, int]


@dataclass(frozen=True)
class Parameter:
    """tag: OSC's type tag. about: one line. limits: of the value, as OSCQuery's RANGE; None where it is the presets'
    names. read and set: its value in a stream; set raises ProtocolError or PresetError for a value that cannot be."""

    tag: str
    about: str
    limits: dict[str, Any] | None
    read: Callable[[Stream], Any]
    set: Callable[[Stream, Any], Held]


PARAMETERS = {
    "preset": Parameter(
        "s", "What to repair", None, lambda stream: stream.selection.name,
        lambda stream, value: stream.selection.select(value),
    ),
    "wet": Parameter("f", "Share of the repair", {"MIN": 0.0, "MAX": 1.0}, lambda stream: stream.wet, Stream.set_wet),
    "bypass": Parameter(
        "i", "The sound as it came, equally late", {"VALS": [0, 1]}, lambda stream: int(stream.bypass),
        lambda stream, value: stream.set_bypass(bool(value)),
    ),
    "quality": Parameter(
        "s", "How careful to be", {"VALS": list(QUALITY_STEPS)}, lambda stream: stream.selection.quality,
        lambda stream, value: stream.selection.set_quality(value),
    ),
}  # fmt: skip
