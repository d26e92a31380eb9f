"""Clean stems of every class of instrument, to test the detectors for false alarms.

fluidsynth plays General MIDI instruments; the default sound bank is held out of training. A breathy voice and a
synthesiser without highs, which no bank has, are synthesised from filtered noise and sawtooth waves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.signal

from .midi import render_midi, write_midi
from .packages import VALID_BANK, bank_path
from .sources import SAMPLE_RATE, CorpusError, cache_dir, read_stereo

VERSION = 1  # of the phrases: change it when they change, because rendered audio is cached
CLIP_S = 6
FEWEST = 4  # clips of a class: render_midi rejects audio shorter than 20 s
#: Class: the General MIDI programs that play it.
PROGRAMS = {
    "piano": range(8), "tuned percussion": range(8, 16), "organ": range(16, 23), "acoustic guitar": range(24, 26),
    "clean electric guitar": range(26, 29), "distorted guitar": range(29, 32), "bass": range(32, 40),
    "strings": range(40, 50), "choir": range(52, 55), "brass": range(56, 64), "reeds": range(64, 72),
    "flutes": range(72, 80), "synth lead": range(80, 88), "synth pad": range(88, 96), "plucked": range(104, 109),
}  # fmt: skip
#: Class: its notes on the drum channel.
DRUMS = {"drum kit": (36, 38, 42, 46, 45, 48, 49, 51), "hi-hats": (42, 44, 46), "cymbals": (49, 51, 57)}
SYNTHETIC = ("breathy voice", "synth without highs")
CLASSES = (*PROGRAMS, *DRUMS, *SYNTHETIC)


def phrase_events(name: str, count: int, rng: np.random.Generator) -> list[tuple[float, bytes]]:
    """(seconds, MIDI message) for `count` clips of a class: a phrase of chords or single notes each, on one program."""
    events: list[tuple[float, bytes]] = []
    for clip in range(count):
        at, end = clip * CLIP_S + 0.05, clip * CLIP_S + CLIP_S - 0.6
        step = 60.0 / rng.uniform(70, 150) / rng.choice([1, 2, 4])
        if name in PROGRAMS:
            events.append((at - 0.04, bytes([0xC0, int(rng.choice(PROGRAMS[name]))])))
        scale = np.array([0, 2, 4, 5, 7, 9, 11]) + rng.integers(
            28 if name == "bass" else 45, 40 if name == "bass" else 66
        )
        while at < end:
            if name in DRUMS:
                notes, channel, length = [int(rng.choice(DRUMS[name]))], 9, step
            else:
                size = int(rng.choice([1, 1, 2, 3])) if name != "bass" else 1
                notes = [int(n) for n in rng.choice(scale, size, replace=False)]
                channel, length = 0, step * float(rng.choice([0.8, 1.6, 3.2]))
            for note in notes:
                events.append((at, bytes([0x90 | channel, note, int(rng.integers(60, 120))])))
                events.append((min(at + length, end), bytes([0x80 | channel, note, 0])))
            at += step * (1 if name in DRUMS or rng.random() < 0.8 else 2)
    return events


def breathy_voice(rng: np.random.Generator) -> np.ndarray:
    """A vowel with more breath than tone (2, T): a sawtooth wave and noise through four formants."""
    size = CLIP_S * SAMPLE_RATE
    t = np.arange(size) / SAMPLE_RATE
    pitch = rng.uniform(180, 400) * (1 + 0.01 * np.sin(2 * np.pi * 5.2 * t)) * 2 ** (np.floor(t * 2) % 5 / 12)
    tone = scipy.signal.sawtooth(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
    source = rng.uniform(0.05, 0.3) * tone + 0.5 * rng.standard_normal(size)
    voice = np.zeros(size)
    for middle, width in zip((700, 1200, 2700, 3600), (90, 110, 170, 250), strict=True):
        low, high = middle * rng.uniform(0.8, 1.2) + np.array([-width, width])
        voice += scipy.signal.sosfilt(
            scipy.signal.butter(1, [low, high], "bandpass", fs=SAMPLE_RATE, output="sos"), source
        )
    air = scipy.signal.sosfilt(scipy.signal.butter(2, 5000, "highpass", fs=SAMPLE_RATE, output="sos"), source)
    envelope = np.clip(np.sin(np.pi * (t * 2 % 1.0)) * 2.0, 0.0, 1.0)
    return np.repeat(((voice + 0.1 * air) * envelope)[None], 2, axis=0)


def synth_without_highs(rng: np.random.Generator) -> np.ndarray:
    """Detuned sawtooth waves (2, T) under a low-pass filter at 400 to 2500 Hz."""
    t = np.arange(CLIP_S * SAMPLE_RATE) / SAMPLE_RATE
    root = 55.0 * 2 ** (rng.integers(0, 24) / 12)
    notes = root * 2 ** (rng.choice([0, 3, 5, 7, 10], CLIP_S * 4) / 12)
    pitch = np.repeat(notes, SAMPLE_RATE // 4)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    sides = [sum(scipy.signal.sawtooth(2 * np.pi * phase * (1 + d)) for d in (-d0, 0.0, d0)) for d0 in (0.003, 0.004)]
    filtered = scipy.signal.sosfilt(
        scipy.signal.butter(4, rng.uniform(400, 2500), fs=SAMPLE_RATE, output="sos"), np.stack(sides)
    )
    return filtered * np.exp(-2.0 * (t * 4 % 1.0) * rng.uniform(0, 1))


def clips(
    count: int, seed: int, bank: str = VALID_BANK, dark: float = 0.0
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(class, stem (2, T), mix (2, T)) of `count` clips of each class, all at one level.

    The mix is the stem and two clips of other classes.
    bank: a package of BANKS; only with the held-out one are the synthetic classes included.
    dark: probability that a rendered clip goes through a low-pass filter.
    Raises CorpusError if fluidsynth is missing or `count` is below FEWEST.
    """
    if count < FEWEST:
        raise CorpusError(f"{count} clips of a class are too few: use {FEWEST} or more")
    held_out = bank == VALID_BANK
    file = bank_path(bank)
    folder = cache_dir() / "midi" / f"instruments-{VERSION}-{bank}-{count}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    stems: dict[str, list[np.ndarray]] = {}
    for number, name in enumerate(CLASSES):
        rng = np.random.default_rng([seed, number])
        if name not in SYNTHETIC:
            midi = folder / f"{name.replace(' ', '-')}.mid"
            write_midi(phrase_events(name, count, rng), midi)
            rendered = render_midi(midi, file, folder, seconds=count * CLIP_S)
            if rendered is None:
                raise CorpusError(f"{name} cannot be played: install fluidsynth (apt-get install fluidsynth)")
            audio, size = read_stereo(rendered), CLIP_S * SAMPLE_RATE
            audio = np.pad(audio, ((0, 0), (0, max(0, count * size - audio.shape[1]))))
            stems[name] = [audio[:, i * size : (i + 1) * size] for i in range(count)]
            if dark:
                stems[name] = [_low_pass(stem, rng) if rng.random() < dark else stem for stem in stems[name]]
        elif held_out:
            make = breathy_voice if name == "breathy voice" else synth_without_highs
            stems[name] = [make(rng) for _ in range(count)]
    rng = np.random.default_rng([seed, len(CLASSES)])
    for name, mine in stems.items():
        for stem in mine:
            levelled = 0.1 * stem / (np.sqrt(np.mean(stem**2)) + 1e-9)
            mix = levelled.copy()
            for other in rng.choice([n for n in stems if n != name], 2, replace=False):
                part = stems[other][rng.integers(len(stems[other]))]
                level = 0.1 * 10 ** (rng.uniform(-6, 6) / 20) / (np.sqrt(np.mean(part**2)) + 1e-9)
                mix[:, : part.shape[1]] += level * part[:, : mix.shape[1]]
            yield name, levelled.astype(np.float32), mix.astype(np.float32)


def _low_pass(stem: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken a stem without damaging it: 6 to 24 dB per octave above a random cutoff from 400 Hz to 8 kHz."""
    cutoff_hz = 400.0 * 20.0 ** rng.random()
    return scipy.signal.sosfilt(
        scipy.signal.butter(int(rng.integers(1, 5)), cutoff_hz, fs=SAMPLE_RATE, output="sos"), stem
    )
