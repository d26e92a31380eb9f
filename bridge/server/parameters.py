"""The settings of a stream: one table for OSC, for discovery and for the monitor page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ...engine.repair import QUALITY_STEPS
from ...engine.stem_names import ROLES, UNKNOWN
from .stream import Stream

#: The position at which a change takes effect, now or once its model is loaded.
Held = int | Coroutine[Any, Any, int]


@dataclass(frozen=True)
class Parameter:
    """tag: OSC type tag. about: one line. limits: of the value, as OSCQuery's RANGE; None for the presets' names. read
    and set: its value in a stream; set raises ProtocolError or PresetError for an invalid value."""

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
    "wet": Parameter("f", "Amount of the repair", {"MIN": 0.0, "MAX": 1.0}, lambda stream: stream.wet, Stream.set_wet),
    "bypass": Parameter(
        "i", "The dry signal, with the same latency", {"VALS": [0, 1]}, lambda stream: int(stream.bypass),
        lambda stream, value: stream.set_bypass(bool(value)),
    ),
    "check_mix": Parameter(
        "i", "Whether the mix has to be proved before it is used", {"VALS": [0, 1]},
        lambda stream: int(stream.checks_mix), lambda stream, value: stream.check_mix(bool(value)),
    ),
    "quality": Parameter(
        "s", "Steps of the sampler", {"VALS": list(QUALITY_STEPS)}, lambda stream: stream.selection.quality,
        lambda stream, value: stream.selection.set_quality(value),
    ),
    "role": Parameter(
        "s", "What the stem is", {"VALS": [UNKNOWN, *ROLES]}, lambda stream: stream.role or UNKNOWN,
        lambda stream, value: stream.set_role(None if value == UNKNOWN else value),
    ),
}  # fmt: skip
