"""Resynthesises a vocal stem with another singer's formants, pitch, vibrato, breath and stereo image.

The WORLD vocoder (M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for
real-time applications", IEICE Trans. Inf. Syst., 2016) estimates pitch, spectral envelope and aperiodicity every 5 ms,
and each can be changed independently. Needs pyworld (the extra `train`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pedalboard

from .sources import SAMPLE_RATE, CorpusError

FRAME_S = 0.005
_BLOCK_S, _MARGIN_S = (10.0, 20.0), 0.1
CONSONANT_HZ, CONSONANT_SHARE = 3000.0, 0.3
_WARP_TO_HZ = 6000.0


@lru_cache(maxsize=1)
def world_vocoder() -> Any:
    """The module pyworld. Raises CorpusError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyworld 0.3.5 imports pkg_resources, which is deprecated
            import pyworld
    except ImportError as error:
        raise CorpusError(f"{error}: singing needs pyworld, so install the extra: pip install '.[train]'") from error
    return pyworld


@dataclass(frozen=True)
class Singer:
    """How a resynthesised voice differs from the original.

    formant: factor on the formant frequencies, 0.80 to 1.25. semitones: transposition; does not move the formants.
    breath: the aperiodicity is raised to the power 2^-breath; 0 keeps it, 1 is audibly breathy, below 0 is pressed.
    intonation: factor on pitch movements within 0.2 s (scoops, vibrato). vibrato_semitones, vibrato_hz: vibrato added
    to held notes. drift_semitones: standard deviation of a slow pitch drift.
    double_db: level of two doubles, left and right, relative to the lead; None means no doubles.
    room: wet level of a small reverb.
    Raises CorpusError if formant is out of range.
    """

    formant: float = 1.0
    semitones: float = 0.0
    breath: float = 0.0
    intonation: float = 1.0
    vibrato_semitones: float = 0.0
    vibrato_hz: float = 5.4
    drift_semitones: float = 0.0
    double_db: float | None = None
    room: float = 0.0

    def __post_init__(self) -> None:
        if not 0.5 <= self.formant <= 2.0:
            raise CorpusError(f"formant={self.formant} is out of range: use a factor from 0.5 to 2")

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Singer:
        """A random singer, at least a tone or 12% in formants away from the original."""
        while True:
            formant, semitones = float(np.exp(rng.uniform(np.log(0.80), np.log(1.25)))), float(rng.uniform(-7, 7))
            if abs(semitones) > 2 or abs(np.log(formant)) > 0.12:
                break
        return cls(
            formant=formant,
            semitones=semitones,
            breath=float(rng.uniform(-0.3, 1.0)),
            intonation=float(rng.uniform(0.5, 1.4)),
            vibrato_semitones=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.5 else 0.0,
            vibrato_hz=float(rng.uniform(4.6, 6.6)),
            drift_semitones=float(rng.uniform(0.02, 0.12)),
            double_db=float(rng.uniform(-14, -4)) if rng.random() < 0.5 else None,
            room=float(rng.uniform(0.02, 0.15)) if rng.random() < 0.8 else 0.0,
        )


def warp_formants(envelope: np.ndarray, factor: float) -> np.ndarray:
    """Spectral envelope (N, F), 0 Hz to Nyquist, with its formants at `factor` times their frequencies.

    The warping is piecewise linear and keeps 0 Hz and Nyquist (L. Lee, R. Rose, "Speaker normalization using efficient
    frequency warping procedures", ICASSP 1996), so that it does not cut off the highs.
    """
    if factor == 1.0:
        return envelope
    bins = envelope.shape[1]
    knee = _WARP_TO_HZ / (SAMPLE_RATE / 2) * (bins - 1) * min(1.0, factor)
    place = np.interp(np.arange(bins), [0, knee, bins - 1], [0, knee / factor, bins - 1])
    below = np.minimum(place.astype(int), bins - 2)
    part = place - below
    level = np.log(np.maximum(envelope, 1e-20))
    return np.ascontiguousarray(np.exp(level[:, below] * (1 - part) + level[:, below + 1] * part))


def _cuts(mono: np.ndarray) -> list[int]:
    """Sample positions, with start and end, that cut (T,) into blocks of 10 to 20 s where it is quietest."""
    window = int(0.02 * SAMPLE_RATE)
    level = np.sqrt(np.mean(mono[: len(mono) // window * window].reshape(-1, window) ** 2, axis=1))
    cuts = [0]
    shortest, longest = (int(seconds * SAMPLE_RATE / window) for seconds in _BLOCK_S)
    while len(mono) - cuts[-1] > longest * window:
        first = cuts[-1] // window + shortest
        cuts.append((first + int(np.argmin(level[first : first + longest - shortest]))) * window)
    return [*cuts, len(mono)]


def _run_lengths(voiced: np.ndarray) -> np.ndarray:
    """For each frame (N,), how many frames it has been voiced."""
    count = np.arange(1, len(voiced) + 1)
    return count - np.maximum.accumulate(np.where(voiced, 0, count))


def _change_pitch(f0: np.ndarray, singer: Singer, rng: np.random.Generator) -> np.ndarray:
    """The singer's pitch (N,) in Hz from the original's; 0 where unvoiced."""
    voiced = f0 > 0
    tone = np.where(voiced, 12 * np.log2(np.maximum(f0, 1.0) / 440), 0.0)
    window = np.ones(min(41, len(f0)))
    count = np.convolve(voiced, window, mode="same")
    detail = tone - np.convolve(tone * voiced, window, mode="same") / np.maximum(count, 1)
    drift = np.convolve(rng.standard_normal(len(f0) + 200), np.hanning(201), mode="valid") / np.sqrt(0.375 * 200)
    held = np.clip((_run_lengths(voiced) * FRAME_S - 0.25) / 0.3, 0, 1)
    phase = 2 * np.pi * (singer.vibrato_hz * np.arange(len(f0)) * FRAME_S + rng.random())
    tone += singer.semitones + (singer.intonation - 1) * np.clip(detail, -0.7, 0.7)
    tone += singer.drift_semitones * drift[: len(f0)] + singer.vibrato_semitones * held * np.sin(phase)
    return np.where(voiced, 440 * 2 ** (tone / 12), 0.0)


def consonant_weight(f0: np.ndarray, envelope: np.ndarray, length: int) -> np.ndarray:
    """How much of each sample (length,) is a sharp consonant, 0 to 1: unvoiced, with much of its power above 3 kHz."""
    first = int(CONSONANT_HZ / (SAMPLE_RATE / 2) * (envelope.shape[1] - 1))
    share = envelope[:, first:].sum(axis=1) / (envelope.sum(axis=1) + 1e-20)
    weight = np.convolve((f0 <= 0) & (share > CONSONANT_SHARE), np.ones(3) / 3, mode="same")
    return np.interp(np.arange(length) / SAMPLE_RATE, np.arange(len(f0)) * FRAME_S, weight)


def resynthesise(
    audio: np.ndarray, rngs: list[np.random.Generator], singers: list[Singer] | None = None
) -> list[np.ndarray]:
    """A vocal stem, (T,) or (2, T) at 44.1 kHz, as each of several singers would sing it: (2, T) float32 each.

    singers: one for each generator; None draws them. The stem is analysed once, as mono, and gets a new stereo image.
    Sharp consonants are copied from the stem, because a vocoder blurs them. WORLD follows one voice at a time; if
    several sing, the clearest.
    """
    world = world_vocoder()
    singers = [Singer.draw(rng) for rng in rngs] if singers is None else singers
    mono = np.ascontiguousarray(np.atleast_2d(audio).mean(axis=0), dtype=np.float64)
    tracks = [np.zeros((1 if singer.double_db is None else 3, len(mono)), np.float32) for singer in singers]
    cuts = _cuts(mono)
    margin = int(_MARGIN_S * SAMPLE_RATE)
    for start, end in pairwise(cuts):
        first, last = max(start - margin, 0), min(end + margin, len(mono))
        block = mono[first:last]
        if np.abs(block).max(initial=0) < 1e-4 or len(block) < 0.1 * SAMPLE_RATE:
            continue
        f0, times = world.dio(block, SAMPLE_RATE, f0_floor=65.0, f0_ceil=1000.0, frame_period=1000 * FRAME_S)
        f0 = world.stonemask(block, f0, times, SAMPLE_RATE)
        envelope = world.cheaptrick(block, f0, times, SAMPLE_RATE)
        noise = world.d4c(block, f0, times, SAMPLE_RATE)
        consonants = consonant_weight(f0, envelope, len(block))
        fade = np.ones(len(block))
        for edge, at in ((start, slice(None, 2 * margin)), (end, slice(-2 * margin, None))):
            if 0 < edge < len(mono):
                fade[at] = np.linspace(0, 1, 2 * margin)[:: 1 if edge == start else -1]
        for singer, rng, lead_and_doubles in zip(singers, rngs, tracks, strict=True):
            warped = warp_formants(envelope, singer.formant)
            breath = np.nan_to_num(noise, nan=1.0) ** 2**-singer.breath
            for track in lead_and_doubles:
                pitch = _change_pitch(f0, singer, rng)
                voice = world.synthesize(pitch, warped, breath, SAMPLE_RATE, frame_period=1000 * FRAME_S)
                voice = np.pad(voice[: len(block)], (0, max(len(block) - len(voice), 0)))
                voice = voice * (1 - consonants) + block * consonants
                track[first:last] += (voice * fade).astype(np.float32)
    rms = float(np.sqrt(np.mean(mono**2)))
    return [_mix_down(*of_singer, rms) for of_singer in zip(tracks, singers, rngs, strict=True)]


def _mix_down(tracks: np.ndarray, singer: Singer, rng: np.random.Generator, rms: float) -> np.ndarray:
    """Lead and doubles (1 or 3, T) to stereo (2, T) at `rms`. The doubles are delayed and panned; then comes reverb."""
    out = np.stack([tracks[0], tracks[0]])
    for side, double in enumerate(tracks[1:]):
        delay = int(rng.uniform(0.008, 0.025) * SAMPLE_RATE)
        level = 10 ** ((singer.double_db or 0.0) / 20)
        for channel, pan in ((side, 0.95), (1 - side, 0.3)):
            out[channel, delay:] += level * pan * double[: double.shape[0] - delay]
    if singer.room > 0:
        room = pedalboard.Reverb(
            room_size=float(rng.uniform(0.1, 0.5)), damping=float(rng.uniform(0.3, 0.7)), wet_level=singer.room,
            dry_level=0.8,
        )  # fmt: skip
        out = room(out, SAMPLE_RATE)
    level = rms / (float(np.sqrt(np.mean(out**2))) + 1e-12)
    return (out * min(level, 0.95 / (float(np.abs(out).max(initial=0)) + 1e-12))).astype(np.float32)
