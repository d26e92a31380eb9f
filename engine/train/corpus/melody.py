"""Finds the melody of a MIDI song, and sings it with recorded voices by way of the WORLD vocoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .sources import SAMPLE_RATE
from .words import Word, apply_vocal_chain, sing, singable_syllables

DRUM_CHANNEL = 9
_SHORTEST_S, _LONGEST_S = 0.16, 2.5
_FEWEST_NOTES = 16
_MOST_CHORDS = 0.5
_LOWEST, _HIGHEST = 48.0, 91.0
_A4 = 69
#: A voice's range in semitones from its speaking pitch.
_RANGE = (-5.0, 13.0)


@dataclass(frozen=True)
class Note:
    """A note of a MIDI song. program: the instrument, 0 to 127. velocity: 1 to 127."""

    channel: int
    program: int
    pitch: int
    velocity: int
    start_s: float
    end_s: float


def notes_of(events: list[tuple[float, bytes]]) -> list[Note]:
    """The notes in (seconds, MIDI message) pairs, sorted by start. Notes without an end last until the last message."""
    program = [0] * 16
    sounding: dict[tuple[int, int], list[Note]] = {}
    found: list[Note] = []
    now = 0.0
    for now, message in events:
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if kind == 0xC0:
            program[channel] = message[1] & 0x7F
        elif kind == 0x90 and message[2] > 0:
            note = Note(channel, program[channel], message[1], message[2], now, now)
            sounding.setdefault((channel, message[1]), []).append(note)
        elif kind in (0x80, 0x90) and sounding.get((channel, message[1])):
            found.append(replace(sounding[channel, message[1]].pop(0), end_s=now))
    found += [replace(note, end_s=now) for notes in sounding.values() for note in notes]
    return sorted(found, key=lambda note: (note.start_s, note.channel, note.pitch))


def find_melody(notes: list[Note], seconds: float) -> list[Note]:
    """The notes of the channel that a voice could sing best, in a song of `seconds`; empty if there is none.

    A candidate has at least 16 notes, a median pitch in the middle of the keyboard, few chords, and its top notes cover
    at least a quarter of the time. The best one covers most; chords count against a channel, and brass, reeds, flutes
    and synth leads are preferred.
    """
    best: tuple[float, list[Note]] = (0.0, [])
    for channel in sorted({note.channel for note in notes} - {DRUM_CHANNEL}):
        mine = [note for note in notes if note.channel == channel]
        if len(mine) < _FEWEST_NOTES or any(32 <= note.program < 40 or note.program >= 112 for note in mine):
            continue
        line = one_at_a_time(mine)
        chords = sum(b.start_s - a.start_s < 0.03 for a, b in pairwise(mine)) / len(mine)
        pitch = float(np.median([note.pitch for note in mine]))
        covered = sum(note.end_s - note.start_s for note in line) / seconds
        if chords > _MOST_CHORDS or not _LOWEST <= pitch <= _HIGHEST or covered < 0.25:
            continue
        score = min(covered, 1.0) * (1 - chords) * (1.4 if 56 <= mine[0].program < 88 else 1.0)
        if score > best[0]:
            best = (score, line)
    return best[1]


def one_at_a_time(notes: list[Note]) -> list[Note]:
    """A line for one voice: of notes that start together the highest, cut off where the next one starts. Notes that
    are too short are dropped."""
    line: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start_s, -note.pitch)):
        if line and note.start_s - line[-1].start_s < _SHORTEST_S:
            continue
        if line and line[-1].end_s > note.start_s:
            line[-1] = replace(line[-1], end_s=note.start_s)
        line.append(note)
    line = [replace(note, end_s=min(note.end_s, note.start_s + _LONGEST_S)) for note in line]
    return [note for note in line if note.end_s - note.start_s >= _SHORTEST_S]


def sing_melody(
    clips: list[np.ndarray], line: list[Note], length: int, rng: np.random.Generator, formant: float = 1.0
) -> np.ndarray:
    """Recorded words, mono (T,) at 44.1 kHz each, sung to a line of notes: stereo (2, length) float32.

    The line, and single notes outside the voice's range, are transposed by octaves to suit its speaking pitch.
    Raises CorpusError if too few of the words can be sung.
    """
    words, speaking_pitch = singable_syllables(clips, rng, formant)
    pitches = np.array([note.pitch - _A4 for note in line], dtype=float)
    pitches += 12 * np.round((speaking_pitch + 4 - np.median(pitches)) / 12)
    for step, outside in ((12, pitches < speaking_pitch + _RANGE[0]), (-12, pitches > speaking_pitch + _RANGE[1])):
        pitches[outside] += step
    vibrato = (float(rng.uniform(0.05, 0.5)), float(rng.uniform(4.8, 6.4)))
    voice = np.zeros(length, np.float32)
    before, ended_s = float(pitches[0]), -1.0
    queue: list[Word] = []
    for note, pitch in zip(line, pitches, strict=True):
        at, size = int(note.start_s * SAMPLE_RATE), int((note.end_s - note.start_s) * SAMPLE_RATE)
        if at >= length:
            break
        queue = queue or list(words[rng.integers(len(words))])
        legato = note.start_s - ended_s < 0.1 and rng.random() < 0.7
        glide_from = before if legato else pitch - float(rng.uniform(0, 2))
        audio = sing(
            queue.pop(0), pitch + float(rng.normal(0, 0.06)), size, glide_from,
            formant=formant, vibrato=vibrato, consonants=True,
        )  # fmt: skip
        rms = 0.1 * 10 ** ((12 * (note.velocity / 127 - 1) + float(rng.uniform(-1.5, 1.5))) / 20)
        audio *= np.float32(rms / (float(np.sqrt(np.mean(audio**2))) + 1e-9))
        end = min(at + len(audio), length)
        voice[at:end] += audio[: end - at]
        before, ended_s = float(pitch), note.end_s
    return apply_vocal_chain(voice, rng)
