"""Other singers out of a sung stem: other formants, pitch, vibrato, breath and place.

The WORLD vocoder (M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for
real-time applications", IEICE Trans. Inf. Syst., 2016) finds pitch, spectral envelope and aperiodicity of each 5 ms,
which are changed apart from each other. Needs pyworld (the extra `train`).
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
HISS_HZ, HISS_SHARE = 3000.0, 0.3
_WARP_TO_HZ = 6000.0


@lru_cache(maxsize=1)
def world_vocoder() -> Any:
    """The module pyworld. Raises CorpusError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pyworld 0.3.5 asks pkg_resources for its own version
            import pyworld
    except ImportError as error:
        raise CorpusError(
            f"{error}: pyworld makes the singing, so install the extra: pip install '.[train]'"
        ) from error
    return pyworld


@dataclass(frozen=True)
class Singer:
    """How a resynthesised voice differs from the one that sang.

    formant: factor on the frequencies of the formants, 0.80 to 1.25. semitones: change of pitch, which leaves the
    formants alone. breath: aperiodicity to the power of 2^-breath; 0 leaves it, 1 is audibly breathy, below 0 is
    pressed. intonation: factor on what the pitch does within 0.2 s (scoops, vibrato). vibrato_semitones, vibrato_hz: a
    vibrato that is added to held notes. drift_semitones: standard deviation of a slow wandering of the pitch.
    double: level of a second and a third take, left and right, in dB below the first; None is one take alone.
    room: wet level of a small reverb.
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
            raise CorpusError(f"formant={self.formant} is not a voice any more: use a factor within 0.5 to 2")

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Singer:
        """A random singer, at least a tone or an eighth of the formants away from the one that sang."""
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

    Piecewise linear, so that 0 and the Nyquist frequency stay (L. Lee, R. Rose, "Speaker normalization using efficient
    frequency warping procedures", ICASSP 1996): what is cut off nowhere is cut off nowhere afterwards.
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
    """Places (samples, first and last included) that cut (T,) into blocks of 10 to 20 s, where it is quietest."""
    window = int(0.02 * SAMPLE_RATE)
    level = np.sqrt(np.mean(mono[: len(mono) // window * window].reshape(-1, window) ** 2, axis=1))
    cuts = [0]
    shortest, longest = (int(seconds * SAMPLE_RATE / window) for seconds in _BLOCK_S)
    while len(mono) - cuts[-1] > longest * window:
        first = cuts[-1] // window + shortest
        cuts.append((first + int(np.argmin(level[first : first + longest - shortest]))) * window)
    return [*cuts, len(mono)]


def _run_lengths(voiced: np.ndarray) -> np.ndarray:
    """For each frame (N,), for how many frames it has been voiced by then."""
    count = np.arange(1, len(voiced) + 1)
    return count - np.maximum.accumulate(np.where(voiced, 0, count))


def _pitch_of(f0: np.ndarray, singer: Singer, rng: np.random.Generator) -> np.ndarray:
    """Pitch (N,) in Hz, 0 where unvoiced, as another singer would have it."""
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


def hissing(f0: np.ndarray, envelope: np.ndarray, length: int) -> np.ndarray:
    """Where (length,) a voice hisses or clicks, 0 to 1: unvoiced frames with much of their power above 3 kHz."""
    first = int(HISS_HZ / (SAMPLE_RATE / 2) * (envelope.shape[1] - 1))
    share = envelope[:, first:].sum(axis=1) / (envelope.sum(axis=1) + 1e-20)
    weight = np.convolve((f0 <= 0) & (share > HISS_SHARE), np.ones(3) / 3, mode="same")
    return np.interp(np.arange(length) / SAMPLE_RATE, np.arange(len(f0)) * FRAME_S, weight)


def _fit(sound: np.ndarray, length: int) -> np.ndarray:
    """(n,) cut or padded to (length,)."""
    return np.pad(sound[:length], (0, max(length - len(sound), 0)))


def other_singers(
    audio: np.ndarray, rngs: list[np.random.Generator], singers: list[Singer] | None = None
) -> list[np.ndarray]:
    """A sung stem, (T,) or (2, T) at 44.1 kHz, by several other singers, each (2, T) float32.

    The stem is analysed once, as mono: its stereo is made anew. Hisses and clicks of consonants are the stem's own,
    since a vocoder blurs them. One voice at a time is understood; where several sing, WORLD follows the clearest.
    """
    world = world_vocoder()
    singers = [Singer.draw(rng) for rng in rngs] if singers is None else singers
    mono = np.ascontiguousarray(np.atleast_2d(audio).mean(axis=0), dtype=np.float64)
    takes = [np.zeros((1 if singer.double_db is None else 3, len(mono)), np.float32) for singer in singers]
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
        hiss = hissing(f0, envelope, len(block))
        fade = np.ones(len(block))
        for edge, at in ((start, slice(None, 2 * margin)), (end, slice(-2 * margin, None))):
            if 0 < edge < len(mono):
                fade[at] = np.linspace(0, 1, 2 * margin)[:: 1 if edge == start else -1]
        for singer, rng, tracks in zip(singers, rngs, takes, strict=True):
            warped = warp_formants(envelope, singer.formant)
            breath = np.nan_to_num(noise, nan=1.0) ** 2**-singer.breath
            for take in tracks:
                pitch = _pitch_of(f0, singer, rng)
                sound = world.synthesize(pitch, warped, breath, SAMPLE_RATE, frame_period=1000 * FRAME_S)
                sound = _fit(sound, len(block)) * (1 - hiss) + block * hiss
                take[first:last] += (sound * fade).astype(np.float32)
    rms = float(np.sqrt(np.mean(mono**2)))
    return [_on_stage(tracks, singer, rng, rms) for tracks, singer, rng in zip(takes, singers, rngs, strict=True)]


def another_singer(audio: np.ndarray, rng: np.random.Generator, singer: Singer | None = None) -> np.ndarray:
    """A sung stem, (T,) or (2, T) at 44.1 kHz, as another singer (drawn unless given) would sing it: (2, T) float32."""
    return other_singers(audio, [rng], None if singer is None else [singer])[0]


def _on_stage(takes: np.ndarray, singer: Singer, rng: np.random.Generator, rms: float) -> np.ndarray:
    """Takes (1 or 3, T) to stereo (2, T): one in the middle, the others late, to the left and right, in a room."""
    out = np.stack([takes[0], takes[0]])
    for side, take in enumerate(takes[1:]):
        late = int(rng.uniform(0.008, 0.025) * SAMPLE_RATE)
        level = 10 ** ((singer.double_db or 0.0) / 20)
        for channel, pan in ((side, 0.95), (1 - side, 0.3)):
            out[channel, late:] += level * pan * take[: take.shape[0] - late]
    if singer.room > 0:
        room = pedalboard.Reverb(
            room_size=float(rng.uniform(0.1, 0.5)), damping=float(rng.uniform(0.3, 0.7)), wet_level=singer.room,
            dry_level=0.8,
        )  # fmt: skip
        out = room(out, SAMPLE_RATE)
    level = rms / (float(np.sqrt(np.mean(out**2))) + 1e-12)
    return (out * min(level, 0.95 / (float(np.abs(out).max(initial=0)) + 1e-12))).astype(np.float32)
