"""Voices that sing, made of voices that are there: other singers out of sung stems, and sung lines out of spoken words.

    python -m stemprover.engine.train.singing --stems DIR

fills the cache (`cache_dir()/singing`), once; the pool then takes what it finds there. All of it is done by the WORLD
vocoder (M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications", IEICE Trans. Inf. Syst., 2016): pitch, spectral envelope and aperiodicity of each 5 ms, changed apart
from each other. Needs pyworld (the extra `train`); what is in the cache needs nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pedalboard
import soundfile as sf
from scipy.signal import find_peaks

from .corpus import (
    SAMPLE_RATE,
    SPLITS,
    CorpusError,
    Source,
    audio_length,
    cache_dir,
    default_stems_folder,
    package_sources,
    read_stereo,
)
from .layouts import song_sources

FRAME_S = 0.005
SINGERS_PER_SONG = 5
TRACKS_PER_VOICE = 2
TRACK_S = (60.0, 90.0)
MIN_CLIPS = 6
#: Packs of the "voice" kind that no human being speaks.
ROBOTS = frozenset({"Robot"})
CLIPS_PER_TRACK, _CLIP_S = 24, 2.5
_BLOCK_S, _MARGIN_S = (10.0, 20.0), 0.1
_HISS_HZ, _HISS_SHARE = 3000.0, 0.3
_WARP_TO_HZ = 6000.0
#: How probable a melody's steps are, from four degrees of the scale down to four up.
_STEPS = (0.03, 0.05, 0.14, 0.24, 0.1, 0.23, 0.13, 0.05, 0.03)
_VOWEL_FRAMES, _CONSONANT_FRAMES, _HOARSE = 20, 30, 0.35
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


@lru_cache(maxsize=1)
def _world() -> Any:
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


def _hiss(f0: np.ndarray, envelope: np.ndarray, length: int) -> np.ndarray:
    """Where (length,) a voice hisses or clicks, 0 to 1: unvoiced frames with much of their power above 3 kHz."""
    first = int(_HISS_HZ / (SAMPLE_RATE / 2) * (envelope.shape[1] - 1))
    share = envelope[:, first:].sum(axis=1) / (envelope.sum(axis=1) + 1e-20)
    weight = np.convolve((f0 <= 0) & (share > _HISS_SHARE), np.ones(3) / 3, mode="same")
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
    world = _world()
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
        hiss = _hiss(f0, envelope, len(block))
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


@dataclass(frozen=True)
class Word:
    """A recorded word or syllable as WORLD sees it.

    sound (T,) at 44.1 kHz; per frame of 5 ms: f0 (N,) in Hz, 0 where unvoiced; envelope (N, F), power; noise (N, F),
    aperiodicity.
    """

    sound: np.ndarray
    f0: np.ndarray
    envelope: np.ndarray
    noise: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """The numbers of the frames that are voiced."""
        return np.flatnonzero(self.f0 > 0)

    def cut(self, first: int, last: int) -> Word:
        """Frames [first, last) and the sound that belongs to them."""
        hop = FRAME_S * SAMPLE_RATE
        sound = self.sound[int(first * hop) : int(last * hop)]
        return Word(sound, self.f0[first:last], self.envelope[first:last], self.noise[first:last])


def analyse_word(sound: np.ndarray) -> Word:
    """A recorded word (T,) at 44.1 kHz, taken apart."""
    world = _world()
    sound = np.ascontiguousarray(sound, dtype=np.float64)
    f0, times = world.harvest(sound, SAMPLE_RATE, f0_floor=70.0, f0_ceil=600.0, frame_period=1000 * FRAME_S)
    envelope = world.cheaptrick(sound, f0, times, SAMPLE_RATE)
    return Word(sound, f0, envelope, world.d4c(sound, f0, times, SAMPLE_RATE))


def sing(
    word: Word, note: float, length: int, glide_from: float, *, formant: float = 1.0,
    vibrato: tuple[float, float] = (0.3, 5.4), consonants: bool = False,
) -> np.ndarray:  # fmt: skip
    """A spoken syllable as a sung note (length,): its vowel drawn out, the pitch steady with glide and vibrato.

    note, glide_from: semitones from A4. vibrato: depth in semitones and rate in Hz. consonants: those before and after
    the vowel keep their pace and, where unvoiced, their recorded sound; else the vowel goes on to the end.
    Raises ValueError where there is no vowel.
    """
    voiced = word.voiced
    if len(voiced) < 8:
        seconds = len(word.sound) / SAMPLE_RATE
        raise ValueError(f"a syllable of {seconds:.2f} s has {len(voiced)} voiced frames: it cannot be sung")
    count = len(word.f0)
    frames = int(np.ceil(length / SAMPLE_RATE / FRAME_S)) + 1
    attack = min(int(voiced[0]) + 14, count - 2)  # the consonant and the vowel's onset keep their pace
    last = int(voiced[-1]) - 4
    if consonants:
        attack = min(attack, (int(voiced[0]) + last) // 2)  # of a short vowel it is the middle that is drawn out
    tail = np.arange(last, count - 1)[: frames // 4] if consonants else np.arange(0)
    frames_drawn = frames - len(tail)
    stretched = np.linspace(attack, max(last, attack + 1), max(frames_drawn - attack, 2))
    index = np.concatenate([np.concatenate([np.arange(attack), stretched])[:frames_drawn], tail])
    whole = np.minimum(index.astype(int), count - 2)
    part = (index - whole)[:, None]
    seconds_in = np.arange(frames) * FRAME_S
    glide = (glide_from - note) * np.exp(-seconds_in / 0.05)
    shake = vibrato[0] * np.sin(2 * np.pi * vibrato[1] * seconds_in) * np.clip((seconds_in - 0.25) / 0.3, 0, 1)
    pitch = 440 * 2 ** ((note + glide + shake) / 12)
    pitch[word.f0[whole] <= 0] = 0
    envelope, noise = (
        np.ascontiguousarray(x[whole] * (1 - part) + x[whole + 1] * part) for x in (word.envelope, word.noise)
    )
    noise = np.nan_to_num(noise, nan=1.0)  # D4C has no answer where a clip is digitally silent
    out = _world().synthesize(pitch, warp_formants(envelope, formant), noise, SAMPLE_RATE, frame_period=1000 * FRAME_S)[
        :length
    ]
    if consonants:
        hop = int(FRAME_S * SAMPLE_RATE)
        hiss = _hiss(word.f0, word.envelope, len(word.sound))
        before = min(int(voiced[0]) * hop, length, len(word.sound))
        out[:before] += hiss[:before] * (word.sound[:before] - out[:before])
        after = int(FRAME_S * SAMPLE_RATE * (int(voiced[-1]) + 1))
        at = int(FRAME_S * SAMPLE_RATE * (frames_drawn + int(voiced[-1]) + 1 - last))
        size = max(min(length - at, len(word.sound) - after), 0)
        out[at : at + size] += hiss[after : after + size] * (word.sound[after : after + size] - out[at : at + size])
    fade = min(int(0.03 * SAMPLE_RATE), len(out) // 3)
    out[-fade:] *= np.linspace(1, 0, fade)
    return out.astype(np.float32)


def trim(clip: np.ndarray) -> np.ndarray:
    """A mono clip (T,) from 5 ms before it sounds to 5 ms after, 2.5 s at most; empty where it is silent."""
    peak = float(np.abs(clip).max(initial=0))
    if peak < 5e-3:
        return clip[:0]
    loud = np.flatnonzero(np.abs(clip) > 0.03 * peak)
    return clip[max(loud[0] - 220, 0) : min(loud[-1] + 220, loud[0] + int(_CLIP_S * SAMPLE_RATE))]


def syllables(word: Word) -> list[Word]:
    """A word cut into what can be sung to one note each: at pauses of the voice, and in dips of 6 dB within it.

    Each has its consonants before (0.15 s at most) and, at the word's end, after; what is hoarse or buzzes is left out.
    """
    level = 10 * np.log10(np.convolve(word.envelope.sum(axis=1), np.hanning(13)[1:-1] / 6, mode="same") + 1e-20)
    edges = np.flatnonzero(np.diff(np.pad(word.f0 > 0, 1).astype(int)))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= _VOWEL_FRAMES]
    pieces = []
    for number, (first, last) in enumerate(runs):
        dips = find_peaks(-level[first:last], prominence=6.0, distance=_VOWEL_FRAMES)[0] + first
        start = max(first - _CONSONANT_FRAMES, runs[number - 1][1] if number else 0)
        end = min(last + _CONSONANT_FRAMES, len(word.f0)) if number == len(runs) - 1 else last
        places = [start, *(int(dip) for dip in dips), end]
        pieces += [word.cut(a, b) for a, b in pairwise(places)]
    return [piece for piece in pieces if len(piece.voiced) >= _VOWEL_FRAMES and _is_vowel(piece)]


def _is_vowel(word: Word) -> bool:
    """Whether the voiced frames are a vowel's: neither hoarse nor most of their power above 3 kHz."""
    low = int(_HISS_HZ / (SAMPLE_RATE / 2) * (word.noise.shape[1] - 1))
    power = word.envelope[word.voiced]
    share = power[:, low:].sum(axis=1) / (power.sum(axis=1) + 1e-20)
    return bool(word.noise[word.voiced, :low].mean() < _HOARSE and share.mean() < _HISS_SHARE)


def singable(clips: list[np.ndarray], rng: np.random.Generator, formant: float = 1.0) -> tuple[list[list[Word]], float]:
    """The syllables of some of the clips, mono (T,) at 44.1 kHz each, and the speaker's own pitch in semitones from A4.

    Raises CorpusError where fewer than MIN_CLIPS of the clips have a vowel that can be sung.
    """
    chosen = [clips[i] for i in rng.permutation(len(clips))[:CLIPS_PER_TRACK]]
    words = [analyse_word(clip) for clip in map(trim, chosen) if len(clip) > 0.1 * SAMPLE_RATE]
    sung = [pieces for pieces in map(syllables, words) if pieces]
    if len(sung) < MIN_CLIPS:
        raise CorpusError(f"{len(sung)} of {len(chosen)} clips can be sung: at least {MIN_CLIPS} are needed")
    pitches = np.concatenate([piece.f0[piece.voiced] for pieces in sung for piece in pieces])
    return sung, 12 * np.log2(float(np.median(pitches)) * formant / 440)


def sing_words(clips: list[np.ndarray], rng: np.random.Generator, length: int, formant: float = 1.0) -> np.ndarray:
    """Recorded words, mono (T,) at 44.1 kHz each, sung to a random melody: stereo (2, length) float32.

    A walk on a scale around the speaker's own pitch, in phrases with rests, on a random tempo. formant: as in Singer.
    Raises CorpusError where fewer than MIN_CLIPS of the clips have a vowel that can be sung.
    """
    sung, own = singable(clips, rng, formant)
    tonic = float(np.clip(own + float(rng.uniform(-3, 3)), -26, 0))
    scale = SCALES[rng.integers(len(SCALES))]
    beat = 60 / float(rng.uniform(70, 150)) * SAMPLE_RATE
    vibrato = (float(rng.uniform(0.05, 0.5)), float(rng.uniform(4.8, 6.4)))
    line = np.zeros(length, np.float32)
    at, degree, note, queue = float(rng.uniform(0, 1)) * SAMPLE_RATE, 0, tonic, list[Word]()
    while at < length:
        in_phrase, level_db = int(rng.integers(4, 11)), float(rng.uniform(-4, 2))
        for number in range(in_phrase):
            beats = float(rng.choice([0.5, 1.0, 1.5, 2.0, 3.0], p=[0.35, 0.35, 0.12, 0.13, 0.05]))
            beats = max(beats, 1.5) if number == in_phrase - 1 else beats
            step = int(rng.choice(np.arange(-4, 5), p=_STEPS))
            degree = int(np.clip(degree + step, -len(scale) // 2, len(scale)))
            before, note = note, tonic + 12 * (degree // len(scale)) + scale[degree % len(scale)]
            queue = queue or list(sung[rng.integers(len(sung))])
            # An instrument glides not at all, a singer from somewhere near the note before, or scoops up from below.
            start = before if rng.random() < 0.6 and number else note - float(rng.uniform(0, 2))
            sound = sing(
                queue.pop(0), note + float(rng.normal(0, 0.08)), int(beats * beat), start,
                formant=formant, vibrato=vibrato, consonants=True,
            )  # fmt: skip
            rms = 0.1 * 10 ** ((level_db + float(rng.uniform(-2, 2))) / 20)
            sound *= np.float32(rms / (float(np.sqrt(np.mean(sound**2))) + 1e-9))
            end = min(int(at) + len(sound), length)
            line[int(at) : end] += sound[: max(end - int(at), 0)]
            at += beats * beat
            if at >= length:
                break
        at += float(rng.choice([0.5, 1.0, 2.0, 4.0])) * beat
    return on_tape(line, rng)


def on_tape(line: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A dry mono line (T,) to a stereo vocal (2, T): compressor, presence, at times a chorus, a room."""
    board: list[pedalboard.Plugin] = [
        pedalboard.HighpassFilter(float(rng.uniform(60, 120))),
        pedalboard.Compressor(threshold_db=-22, ratio=float(rng.uniform(2, 4)), attack_ms=5, release_ms=120),
        pedalboard.HighShelfFilter(6000, float(rng.uniform(-2, 4))),
    ]
    if rng.random() < 0.6:
        board.append(pedalboard.Chorus(rate_hz=0.4, depth=0.06, centre_delay_ms=12, mix=float(rng.uniform(0.05, 0.3))))
    if rng.random() < 0.9:
        wet, room = float(rng.uniform(0.03, 0.2)), float(rng.uniform(0.1, 0.6))
        board.append(pedalboard.Reverb(room_size=room, damping=0.4, wet_level=wet, dry_level=0.85, width=1.0))
    out = pedalboard.Pedalboard(board)(np.stack([line, line]), SAMPLE_RATE)
    return (out * (0.8 / (float(np.abs(out).max(initial=0)) + 1e-9))).astype(np.float32)


def _files(source: Source, per_song: int | None = None) -> list[Path]:
    """Where the singing made of a source is, or will be: none for bands, robots, and songs that are held out."""
    if source.role != "vocals" or source.name.split("/")[-1] in ROBOTS:
        return []
    if source.kind == "song":
        singers = SINGERS_PER_SONG if per_song is None else per_song
        count = singers if source.split == "train" else 0
    else:
        count = TRACKS_PER_VOICE if source.kind == "voice" else 0
    stem = source.name.replace("/", "-")
    return [cache_dir() / "singing" / f"{stem}-{number}.flac" for number in range(1, count + 1)]


def _rng(path: Path) -> np.random.Generator:
    """What a made file's chances hang on: its name alone."""
    return np.random.default_rng(zlib.crc32(path.stem.encode()))


def _write(path: Path, audio: np.ndarray) -> None:
    assert np.isfinite(audio).all(), path.stem
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    sf.write(str(part), audio.T, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    part.replace(path)


def make_singing(source: Source, say: Callable[[str], None] = print, per_song: int | None = None) -> list[Path]:
    """Make what is missing of the singing of a source; returns what it made. A voice that cannot be sung is marked.

    per_song: singers made of a song's (SINGERS_PER_SONG). Raises CorpusError where what is there was made of another
    song of that name.
    """
    files = _files(source, per_song)
    missing = [path for path in files if not path.exists() and not path.with_suffix(".useless").exists()]
    for path in files:
        if source.kind == "song" and path.exists() and audio_length(path) != source.length_samples:
            raise CorpusError(f"{path} was made of another song called {source.group!r}: rename the song's folder")
    if not missing:
        return []
    missing[0].parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    rngs = [_rng(path) for path in missing]
    if source.kind == "song":
        made = other_singers(source.read(0, source.length_samples), rngs)
    else:
        clips = [read_stereo(part).mean(axis=0) for part in source.parts]
        made = []
        for path, rng in zip(missing, rngs, strict=True):
            length = int(rng.uniform(*TRACK_S) * SAMPLE_RATE)
            try:
                formant = 1.0 if path == files[0] else float(rng.uniform(0.85, 1.18))
                made.append(sing_words(clips, rng, length, formant))
            except CorpusError as error:
                for useless in missing:
                    useless.with_suffix(".useless").touch()
                say(f"{source.name}: {error}")
                return []
    for path, audio in zip(missing, made, strict=True):
        _write(path, audio)
    seconds, took = sum(audio.shape[1] for audio in made) / SAMPLE_RATE, time.perf_counter() - began
    say(f"{source.name}: {seconds / 60:.1f} min of singing in {took:.0f} s, {seconds / took:.1f} x real time")
    return missing


def singing_sources(sources: list[Source], per_song: int | None = None) -> list[Source]:
    """The singing in the cache that was made of some sources, as sources of kind "singing"; each keeps the split."""
    found = []
    for source in sources:
        if source.kind == "song":
            origin = "resung"
        else:
            origin = f"sung-{source.name.split('/')[0]}"
        for path in _files(source, per_song):
            if path.exists():
                name = f"{origin}/{path.stem}"
                found.append(Source(name, "vocals", "singing", source.group, source.licence, source.split, (path,)))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.singing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.{ogg,wav,flac}"
    )
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--no-packages", action="store_true", help="use the stems folder only, no Debian packages")
    parser.add_argument("--share", metavar="K/N", default="1/1", help="the Kth of N shares, for several processes")
    options = parser.parse_args(arguments)
    try:
        k, n = (int(part) for part in options.share.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 1 <= k <= n:
        parser.error(f"--share {options.share}: give two numbers, as 1/2 and 2/2")
    try:
        sources = song_sources(options.stems) if options.stems is not None else []
        if not options.no_packages:
            sources += package_sources(midi=False)
        sources = [source for source in sources if source.split == options.split and _files(source)]
        for source in sources[k - 1 :: n]:
            make_singing(source, say=lambda line: print(line, flush=True))
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
