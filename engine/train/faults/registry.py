"""All mechanisms by family. A quarter or more of each family is unknown: never trained on, only measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Mechanism:
    """One way to damage a stem. `damage(stem, rest, rng)` takes and returns (C, T) float32 at 44.1 kHz, C = 1 or 2, and
    draws all its parameters; equal generators give equal results. together: it has to see both channels at once."""

    name: str
    family: str
    damage: Damage
    unknown: bool = False
    together: bool = False


MECHANISMS: dict[str, Mechanism] = {}


def mechanism(family: str, *, unknown: bool = False, together: bool = False) -> Callable[[Damage], Damage]:
    """Registers a function under its own name."""

    def register(damage: Damage) -> Damage:
        name = damage.__name__
        MECHANISMS[name] = Mechanism(name, family, damage, unknown, together)
        return damage

    return register
