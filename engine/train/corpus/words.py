"""Sings spoken words: the WORLD vocoder (singers.py) analyses them, then sets them to notes of any pitch and length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pedalboard
from scipy.signal import find_peaks

from .singers import CONSONANT_HZ, CONSONANT_SHARE, FRAME_S, consonant_weight, warp_formants, world_vocoder
from .sources import SAMPLE_RATE, CorpusError

MIN_CLIPS = 6
CLIPS_PER_TRACK, CLIP_S = 24, 2.5
#: Probabilities of a melody's steps, from four degrees of the scale down to four up.
_STEPS = (0.03, 0.05, 0.14, 0.24, 0.1, 0.23, 0.13, 0.05, 0.03)
_VOWEL_FRAMES, _CONSONANT_FRAMES, _HOARSE = 20, 30, 0.35
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))


@dataclass(frozen=True)
class Word:
    """A recorded word or syllable and its analysis by WORLD.

    audio: (T,) at 44.1 kHz. For each frame of 5 ms, f0: pitch (N,) in Hz, 0 where unvoiced; envelope: power (N, F);
    noise: aperiodicity (N, F).
    """

    audio: np.ndarray
    f0: np.ndarray
    envelope: np.ndarray
    noise: np.ndarray

    @property
    def voiced(self) -> np.ndarray:
        """Indices of the voiced frames."""
        return np.flatnonzero(self.f0 > 0)

    def cut(self, first: int, last: int) -> Word:
        """Frames [first, last) and their audio."""
        hop = FRAME_S * SAMPLE_RATE
        audio = self.audio[int(first * hop) : int(last * hop)]
        return Word(audio, self.f0[first:last], self.envelope[first:last], self.noise[first:last])


def analyse_word(audio: np.ndarray) -> Word:
    """Analyse a recorded word (T,) at 44.1 kHz."""
    world = world_vocoder()
    audio = np.ascontiguousarray(audio, dtype=np.float64)
    f0, times = world.harvest(audio, SAMPLE_RATE, f0_floor=70.0, f0_ceil=600.0, frame_period=1000 * FRAME_S)
    envelope = world.cheaptrick(audio, f0, times, SAMPLE_RATE)
    return Word(audio, f0, envelope, world.d4c(audio, f0, times, SAMPLE_RATE))


def sing(
    word: Word, note: float, length: int, glide_from: float, *, formant: float = 1.0,
    vibrato: tuple[float, float] = (0.3, 5.4), consonants: bool = False,
) -> np.ndarray:  # fmt: skip
    """A spoken syllable sung as a note (length,): its vowel stretched, its pitch steady with glide and vibrato.

    note, glide_from: semitones from A4. vibrato: depth in semitones and rate in Hz. consonants: keep the speed of the
    consonants before and after the vowel, and the recording of the unvoiced ones; otherwise the vowel lasts to the end.
    Raises ValueError if there is no vowel.
    """
    voiced = word.voiced
    if len(voiced) < 8:
        seconds = len(word.audio) / SAMPLE_RATE
        raise ValueError(f"a syllable of {seconds:.2f} s with {len(voiced)} voiced frames cannot be sung")
    count = len(word.f0)
    frames = int(np.ceil(length / SAMPLE_RATE / FRAME_S)) + 1
    attack = min(int(voiced[0]) + 14, count - 2)  # the consonant and the vowel's onset are not stretched
    last = int(voiced[-1]) - 4
    if consonants:
        attack = min(attack, (int(voiced[0]) + last) // 2)  # stretch a short vowel in the middle
    tail = np.arange(last, count - 1)[: frames // 4] if consonants else np.arange(0)
    frames_to_tail = frames - len(tail)
    stretched = np.linspace(attack, max(last, attack + 1), max(frames_to_tail - attack, 2))
    index = np.concatenate([np.concatenate([np.arange(attack), stretched])[:frames_to_tail], tail])
    whole = np.minimum(index.astype(int), count - 2)
    part = (index - whole)[:, None]
    seconds_in = np.arange(frames) * FRAME_S
    glide = (glide_from - note) * np.exp(-seconds_in / 0.05)
    swing = vibrato[0] * np.sin(2 * np.pi * vibrato[1] * seconds_in) * np.clip((seconds_in - 0.25) / 0.3, 0, 1)
    pitch = 440 * 2 ** ((note + glide + swing) / 12)
    pitch[word.f0[whole] <= 0] = 0
    envelope, noise = (
        np.ascontiguousarray(x[whole] * (1 - part) + x[whole + 1] * part) for x in (word.envelope, word.noise)
    )
    noise = np.nan_to_num(noise, nan=1.0)  # D4C gives NaN for digital silence
    out = world_vocoder().synthesize(
        pitch, warp_formants(envelope, formant), noise, SAMPLE_RATE, frame_period=1000 * FRAME_S
    )[:length]
    if consonants:
        hop = int(FRAME_S * SAMPLE_RATE)
        weight = consonant_weight(word.f0, word.envelope, len(word.audio))
        before = min(int(voiced[0]) * hop, length, len(word.audio))
        out[:before] += weight[:before] * (word.audio[:before] - out[:before])
        after = int(FRAME_S * SAMPLE_RATE * (int(voiced[-1]) + 1))
        at = int(FRAME_S * SAMPLE_RATE * (frames_to_tail + int(voiced[-1]) + 1 - last))
        size = max(min(length - at, len(word.audio) - after), 0)
        out[at : at + size] += weight[after : after + size] * (word.audio[after : after + size] - out[at : at + size])
    fade = min(int(0.03 * SAMPLE_RATE), len(out) // 3)
    out[-fade:] *= np.linspace(1, 0, fade)
    return out.astype(np.float32)


def trim(clip: np.ndarray) -> np.ndarray:
    """A mono clip (T,) without silence at both ends but for 5 ms, at most 2.5 s long; empty if it is silent."""
    peak = float(np.abs(clip).max(initial=0))
    if peak < 5e-3:
        return clip[:0]
    loud = np.flatnonzero(np.abs(clip) > 0.03 * peak)
    return clip[max(loud[0] - 220, 0) : min(loud[-1] + 220, loud[0] + int(CLIP_S * SAMPLE_RATE))]


def syllables(word: Word) -> list[Word]:
    """Cut a word into syllables to be sung to one note each: at unvoiced gaps and at dips of 6 dB.

    Each keeps up to 0.15 s of consonants before it, and the last one also after it. Hoarse or buzzing ones are dropped.
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
    """Whether the voiced frames are a vowel: not hoarse, and with little power above 3 kHz."""
    low = int(CONSONANT_HZ / (SAMPLE_RATE / 2) * (word.noise.shape[1] - 1))
    power = word.envelope[word.voiced]
    share = power[:, low:].sum(axis=1) / (power.sum(axis=1) + 1e-20)
    return bool(word.noise[word.voiced, :low].mean() < _HOARSE and share.mean() < CONSONANT_SHARE)


def singable_syllables(
    clips: list[np.ndarray], rng: np.random.Generator, formant: float = 1.0
) -> tuple[list[list[Word]], float]:
    """The syllables of random clips, mono (T,) at 44.1 kHz each, and the speaking pitch in semitones from A4.

    Raises CorpusError if fewer than MIN_CLIPS of the clips have a vowel that can be sung.
    """
    chosen = [clips[i] for i in rng.permutation(len(clips))[:CLIPS_PER_TRACK]]
    analysed = [analyse_word(clip) for clip in map(trim, chosen) if len(clip) > 0.1 * SAMPLE_RATE]
    words = [cut for cut in map(syllables, analysed) if cut]
    if len(words) < MIN_CLIPS:
        raise CorpusError(f"{len(words)} of {len(chosen)} clips can be sung: at least {MIN_CLIPS} are needed")
    pitches = np.concatenate([syllable.f0[syllable.voiced] for word in words for syllable in word])
    return words, 12 * np.log2(float(np.median(pitches)) * formant / 440)


def sing_words(clips: list[np.ndarray], rng: np.random.Generator, length: int, formant: float = 1.0) -> np.ndarray:
    """Recorded words, mono (T,) at 44.1 kHz each, sung to a random melody: stereo (2, length) float32.

    The melody is a random walk on a scale around the speaking pitch, in phrases with rests, at a random tempo.
    formant: as in Singer. Raises CorpusError if fewer than MIN_CLIPS of the clips have a vowel that can be sung.
    """
    words, speaking_pitch = singable_syllables(clips, rng, formant)
    tonic = float(np.clip(speaking_pitch + float(rng.uniform(-3, 3)), -26, 0))
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
            queue = queue or list(words[rng.integers(len(words))])
            # Singers glide from near the previous note, or scoop up from below.
            start = before if rng.random() < 0.6 and number else note - float(rng.uniform(0, 2))
            audio = sing(
                queue.pop(0), note + float(rng.normal(0, 0.08)), int(beats * beat), start,
                formant=formant, vibrato=vibrato, consonants=True,
            )  # fmt: skip
            rms = 0.1 * 10 ** ((level_db + float(rng.uniform(-2, 2))) / 20)
            audio *= np.float32(rms / (float(np.sqrt(np.mean(audio**2))) + 1e-9))
            end = min(int(at) + len(audio), length)
            line[int(at) : end] += audio[: max(end - int(at), 0)]
            at += beats * beat
            if at >= length:
                break
        at += float(rng.choice([0.5, 1.0, 2.0, 4.0])) * beat
    return apply_vocal_chain(line, rng)


def apply_vocal_chain(line: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A dry mono vocal (T,) to stereo (2, T): equaliser, compressor, and often chorus and reverb."""
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
