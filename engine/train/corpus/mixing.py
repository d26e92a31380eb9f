"""The mixing desk of songs that are played from MIDI: each stem's sound and place, and levels that fit together."""

from __future__ import annotations

import numpy as np
import pedalboard

from .sources import SAMPLE_RATE

_PEAK = 0.9


def on_stage(sound: np.ndarray, stem: str, rng: np.random.Generator) -> np.ndarray:
    """A stem (2, T) with its own equaliser, saturation, room and place, at the level that it had."""
    before = loudness(sound)
    board: list[pedalboard.Plugin] = []
    if rng.random() < 0.5:
        board.append(pedalboard.HighpassFilter(float(rng.uniform(25, 60 if stem in ("drums", "bass") else 180))))
    for _ in range(rng.integers(1, 4)):
        frequency_hz = float(np.exp(rng.uniform(np.log(100), np.log(8000))))
        board.append(pedalboard.PeakFilter(frequency_hz, float(rng.uniform(-5, 5)), float(rng.uniform(0.5, 1.5))))
    board.append(pedalboard.HighShelfFilter(float(rng.uniform(4000, 10000)), float(rng.uniform(-5, 4))))
    if rng.random() < 0.5:
        threshold_db, ratio = float(20 * np.log10(before + 1e-9)), float(rng.uniform(1.5, 4))
        attack_ms, release_ms = float(rng.uniform(2, 30)), float(rng.uniform(60, 250))
        board.append(pedalboard.Compressor(threshold_db, ratio, attack_ms, release_ms))
    out = pedalboard.Pedalboard(board)(sound, SAMPLE_RATE)
    if rng.random() < 0.4:  # an amplifier's or a tape's bend, mixed with what came in
        drive, share = 10 ** (rng.uniform(0, 14) / 20) / (4 * before + 1e-9), float(rng.uniform(0.2, 0.8))
        out = (1 - share) * out + share * np.tanh(drive * out) / drive
    if rng.random() < (0.15 if stem == "bass" else 0.6):
        size, wet = float(rng.uniform(0.1, 0.8)), float(rng.uniform(0.03, 0.2))
        room = pedalboard.Reverb(room_size=size, damping=float(rng.uniform(0.2, 0.8)), wet_level=wet, dry_level=0.8)
        out = room(out, SAMPLE_RATE)
    pan = float(rng.uniform(-0.4, 0.4)) if stem in ("guitar", "piano", "other") else 0.0
    out = out * np.array([[min(1.0, 1 - pan)], [min(1.0, 1 + pan)]])
    gain_db = float(rng.uniform(-4, 4)) if stem != "drums" else 0.0
    return (out * (before * 10 ** (gain_db / 20) / (loudness(out) + 1e-9))).astype(np.float32)


def loudness(sound: np.ndarray) -> float:
    """RMS of the louder half of the half-second windows of (2, T)."""
    window = SAMPLE_RATE // 2
    count = max(sound.shape[1] // window, 1)
    power = np.sort(np.mean(sound[:, : count * window].reshape(2, count, -1) ** 2, axis=(0, 2)))
    return float(np.sqrt(power[count // 2 :].mean()))


def even(stems: dict[str, np.ndarray]) -> None:
    """One gain for all stems, so that neither they nor their sum pass full scale."""
    total = np.sum(list(stems.values()), axis=0)
    peak = max(float(np.abs(sound).max()) for sound in (total, *stems.values()))
    for sound in stems.values():
        sound *= np.float32(_PEAK / max(peak, 1e-6))
