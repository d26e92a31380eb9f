"""Draws a fault: one to three mechanisms, where they act, in which channels, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...metrics.basic import si_sdr
from . import bands, leaks, masks, phases, resynthesis, separators, times
from .grid import curve, filtered, some_hz
from .registry import MECHANISMS, Mechanism

FAMILIES = tuple(dict.fromkeys(m.family for m in MECHANISMS.values()))
#: SI-SDR of the faulty stem in dB: about half of all draws are above the middle one.
LOWEST_DB, MIDDLE_DB, HIGHEST_DB = 0.0, 10.0, 35.0
MOST = 4.0  # times that an error may be made larger to get there
_REGISTERED = (bands, leaks, masks, phases, resynthesis, separators, times)


@dataclass(frozen=True)
class Fault:
    """A faulty stem (2, T) float32, the mechanisms that made it, and its SI-SDR in dB."""

    audio: np.ndarray
    mechanisms: tuple[str, ...]
    si_sdr_db: float


def known() -> list[Mechanism]:
    """The mechanisms to train on."""
    return [m for m in MECHANISMS.values() if not m.unknown]


def unknown() -> list[Mechanism]:
    """The mechanisms that are only measured."""
    return [m for m in MECHANISMS.values() if m.unknown]


def damage(
    stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator, mechanisms: Sequence[Mechanism], most: int = 3
) -> Fault:
    """A fault of a stem (2, T) beside the rest of its song (2, T), float32 at 44.1 kHz.

    Each family is as likely as any other. A silent stem comes back as it is.
    """
    power = float(np.mean(np.square(stem)))
    if power < 1e-9:
        return Fault(stem.copy(), (), np.inf)
    count = min(most, int(rng.choice([1, 1, 1, 2, 2, 3])))
    families = sorted({m.family for m in mechanisms})
    audio, names = stem, []
    for family in rng.permutation(families)[:count]:
        choices = [m for m in mechanisms if m.family == family]
        chosen = choices[rng.integers(len(choices))]
        audio = _act(chosen, audio, rest, rng)
        names.append(chosen.name)
    wanted = rng.uniform(LOWEST_DB, MIDDLE_DB) if rng.random() < 0.6 else rng.uniform(MIDDLE_DB, HIGHEST_DB)
    found = si_sdr(audio, stem)
    if found < LOWEST_DB or rng.random() < 0.85:
        audio = stem + np.float32(min(MOST, 10 ** ((found - wanted) / 20))) * (_levelled(audio, stem) - stem)
        found = si_sdr(audio, stem)
    return Fault(np.ascontiguousarray(audio, np.float32), tuple(names), found)


def _act(mechanism: Mechanism, stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One mechanism, on the channels, in the times and in the bands that it is drawn for."""
    chance = rng.random()
    if mechanism.together or chance < 0.5:
        made = mechanism.damage(stem, rest, rng)
    elif chance < 0.75:  # each channel by itself, or one of them
        hit = [True, True] if rng.random() < 0.7 else rng.permutation([True, False])
        made = np.concatenate(
            [
                mechanism.damage(stem[c : c + 1], rest[c : c + 1], rng) if hit[c] else stem[c : c + 1]
                for c in range(len(stem))
            ]
        )
    else:  # middle and side, or one of them
        turn = np.array([[0.5, 0.5], [0.5, -0.5]], np.float32)
        own, other = turn @ stem, turn @ rest
        hit = [True, True] if rng.random() < 0.5 else [True, False] if rng.random() < 0.7 else [False, True]
        parts = [
            mechanism.damage(own[c : c + 1], other[c : c + 1], rng) if hit[c] else own[c : c + 1] for c in range(2)
        ]
        made = np.concatenate(parts)
        made = np.stack([made[0] + made[1], made[0] - made[1]])
    change = np.nan_to_num(made - stem)
    length = stem.shape[-1]
    if rng.random() < 0.4:  # only for a share of the time
        share = float(rng.uniform(0.1, 0.9))
        gate = curve(rng, length, int(rng.integers(4, 24)), 0.0, 1.0)
        change = change * np.clip((gate - np.quantile(gate[::64], 1.0 - share)) * 8.0 + 0.5, 0.0, 1.0)
    if rng.random() < 0.3 and mechanism.family != "bands":  # only in some bands
        low, high = np.sort([some_hz(rng, 40.0, 20000.0) for _ in range(2)])
        hz = np.array([low / 1.3, low, max(high, 1.5 * low), 1.3 * max(high, 1.5 * low)])
        change = filtered(change, np.array([-60.0, 0.0, 0.0, -60.0]), hz)
    return (stem + change).astype(np.float32)


def _levelled(audio: np.ndarray, stem: np.ndarray) -> np.ndarray:
    """With the level at which it is nearest to the stem, if that is within 3 dB."""
    gain = float(np.vdot(audio, stem)) / max(float(np.vdot(audio, audio)), 1e-12)
    return audio * np.float32(np.clip(gain, 0.7, 1.4))
