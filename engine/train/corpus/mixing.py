"""Mixes rendered songs: a channel strip for each stem, and levels."""

from __future__ import annotations

import numpy as np
import pedalboard

from .sources import SAMPLE_RATE

_PEAK = 0.9


def apply_channel_strip(audio: np.ndarray, stem: str, rng: np.random.Generator) -> np.ndarray:
    """A stem (2, T) through a random equaliser, compressor, saturation, reverb and pan, at about its original level."""
    before = active_rms(audio)
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
    out = pedalboard.Pedalboard(board)(audio, SAMPLE_RATE)
    if rng.random() < 0.4:  # saturation, as of an amplifier or tape, in parallel with the dry signal
        drive, amount = 10 ** (rng.uniform(0, 14) / 20) / (4 * before + 1e-9), float(rng.uniform(0.2, 0.8))
        out = (1 - amount) * out + amount * np.tanh(drive * out) / drive
    if rng.random() < (0.15 if stem == "bass" else 0.6):
        size, wet = float(rng.uniform(0.1, 0.8)), float(rng.uniform(0.03, 0.2))
        room = pedalboard.Reverb(room_size=size, damping=float(rng.uniform(0.2, 0.8)), wet_level=wet, dry_level=0.8)
        out = room(out, SAMPLE_RATE)
    pan = float(rng.uniform(-0.4, 0.4)) if stem in ("guitar", "piano", "other") else 0.0
    out = out * np.array([[min(1.0, 1 - pan)], [min(1.0, 1 + pan)]])
    gain_db = float(rng.uniform(-4, 4)) if stem != "drums" else 0.0
    return (out * (before * 10 ** (gain_db / 20) / (active_rms(out) + 1e-9))).astype(np.float32)


def active_rms(audio: np.ndarray) -> float:
    """RMS of the louder half of the half-second windows of (2, T), so that pauses do not count."""
    window = SAMPLE_RATE // 2
    count = max(audio.shape[1] // window, 1)
    power = np.sort(np.mean(audio[:, : count * window].reshape(2, count, -1) ** 2, axis=(0, 2)))
    return float(np.sqrt(power[count // 2 :].mean()))


def normalise_peak(stems: dict[str, np.ndarray]) -> None:
    """Scale all stems (2, T) in place by one gain, so that the highest peak of a stem or of their sum is 0.9."""
    total = np.sum(list(stems.values()), axis=0)
    peak = max(float(np.abs(audio).max()) for audio in (total, *stems.values()))
    for audio in stems.values():
        audio *= np.float32(_PEAK / max(peak, 1e-6))
