"""Sung lines out of spoken words: analysed once by the WORLD vocoder (singers.py), then set to notes of any pitch and
length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pedalboard
from scipy.signal import find_peaks

from .singers import FRAME_S, HISS_HZ, HISS_SHARE, hissing, warp_formants, world_vocoder
from .sources import SAMPLE_RATE, CorpusError

MIN_CLIPS = 6
CLIPS_PER_TRACK, CLIP_S = 24, 2.5
#: How probable a melody's steps are, from four degrees of the scale down to four up.
_STEPS = (0.03, 0.05, 0.14, 0.24, 0.1, 0.23, 0.13, 0.05, 0.03)
_VOWEL_FRAMES, _CONSONANT_FRAMES, _HOARSE = 20, 30, 0.35
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


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
    world = world_vocoder()
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
    out = world_vocoder().synthesize(
        pitch, warp_formants(envelope, formant), noise, SAMPLE_RATE, frame_period=1000 * FRAME_S
    )[:length]
    if consonants:
        hop = int(FRAME_S * SAMPLE_RATE)
        hiss = hissing(word.f0, word.envelope, len(word.sound))
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
    return clip[max(loud[0] - 220, 0) : min(loud[-1] + 220, loud[0] + int(CLIP_S * SAMPLE_RATE))]


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
    low = int(HISS_HZ / (SAMPLE_RATE / 2) * (word.noise.shape[1] - 1))
    power = word.envelope[word.voiced]
    share = power[:, low:].sum(axis=1) / (power.sum(axis=1) + 1e-20)
    return bool(word.noise[word.voiced, :low].mean() < _HOARSE and share.mean() < HISS_SHARE)


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
