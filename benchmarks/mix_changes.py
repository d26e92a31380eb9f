"""Changes that spoil a mix, by themselves and in random chains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from ..engine.dsp.codec import decode, encode

RATE = 44100
BLEED = 0.12
Change = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, str]]


def shift(mix: np.ndarray, samples: float) -> np.ndarray:
    """A mix (C, T) that comes later by so many samples; as long as before, with silence where it has nothing."""
    whole = int(np.floor(samples))
    if samples != whole:
        size = mix.shape[1] + 512
        turn = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size * (samples - whole))
        mix = np.fft.irfft(np.fft.rfft(mix, size) * turn, size)[:, : mix.shape[1]]
    moved = np.pad(mix, ((0, 0), (max(whole, 0), 0)))[:, max(-whole, 0) :]
    return np.pad(moved, ((0, 0), (0, max(0, mix.shape[1] - moved.shape[1]))))[:, : mix.shape[1]]


def offset(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Up to a tenth of a second, often with a fraction of a sample."""
    samples = float(rng.uniform(-4410, 4410))
    samples = round(samples) if rng.random() < 0.5 else samples
    return shift(mix, samples), f"offset {samples:.2f}"


def drift(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A clock that is up to 100 ppm off."""
    ppm = float(rng.uniform(-100, 100))
    fine = soxr.resample(mix.T, 1_000_000, 1_000_000 * (1 + ppm * 1e-6), quality="VHQ").T
    return fit_length(fine, mix.shape[1]), f"drift {ppm:.0f} ppm"


def slip(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Samples that are missing or too many from somewhere in the middle on."""
    samples = int(rng.choice([-1, 1])) * int(10 ** rng.uniform(0.5, 3.5))
    place = int(rng.uniform(0.3, 0.7) * mix.shape[1])
    later = shift(mix, samples)
    return np.concatenate([mix[:, :place], later[:, place:]], axis=1), f"slip {samples} at {place / RATE:.1f} s"


def edit(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """The second part comes from elsewhere in the song."""
    place = int(rng.uniform(0.3, 0.7) * mix.shape[1])
    return np.concatenate([mix[:, :place], np.roll(mix, mix.shape[1] // 3, axis=1)[:, place:]], axis=1), "edit"


def gain(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Up to 8 dB."""
    db = float(rng.uniform(-8, 4))
    return mix * 10 ** (db / 20), f"gain {db:.1f} dB"


def balance(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Left and right up to 3 dB apart."""
    db = float(rng.uniform(-3, 3))
    return mix * 10 ** (np.array([[db], [-db]]) / 40), f"balance {db:.1f} dB"


def polarity(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Inverted in one channel or both."""
    signs = [(-1, -1), (1, -1), (-1, 1)][rng.integers(3)]
    return mix * np.array(signs)[:, None], f"polarity {signs}"


def swap(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Left and right."""
    return mix[::-1], "swap"


def mono(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """The same in both channels."""
    return np.repeat(mix.mean(axis=0, keepdims=True), 2, axis=0), "mono"


def codec(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """MP3 or Vorbis."""
    kind, subtype = [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")][rng.integers(2)]
    level = float(rng.uniform(0.3, 0.9))
    settings: dict[str, Any] = {"bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    data = encode(mix, kind, subtype, compression_level=level, **settings)
    return fit_length(decode(data).astype(float), mix.shape[1]), f"{kind.lower()} at {level:.2f}"


def shelf(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A shelving equaliser of up to 3 dB."""
    from pedalboard import HighShelfFilter, LowShelfFilter, Pedalboard

    kind, hz = [(LowShelfFilter, 250.0), (HighShelfFilter, 4000.0)][rng.integers(2)]
    db = float(rng.uniform(-3, 3))
    found = Pedalboard([kind(cutoff_frequency_hz=hz, gain_db=db)])(mix.astype(np.float32), RATE)
    return found.astype(float), f"shelf {hz:.0f} Hz {db:.1f} dB"


def limiter(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A bus limiter that takes up to 3 dB off."""
    db = float(rng.uniform(1, 3))
    return limited(mix, db), f"limiter {db:.1f} dB"


def limited(mix: np.ndarray, db: float) -> np.ndarray:
    """A mix (2, T) behind a limiter that takes this much off its peak."""
    from pedalboard import Limiter, Pedalboard

    peak = 20 * np.log10(np.abs(mix).max() + 1e-9)
    board = Pedalboard([Limiter(threshold_db=peak - db, release_ms=100)])
    found = board(mix.astype(np.float32), RATE).astype(float)
    return found * (10 ** ((peak - db) / 20) / max(np.abs(found).max(), 1e-9))


def noise(mix: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """White noise, 30 to 60 dB below the mix."""
    db = float(rng.uniform(-60, -30))
    level = np.sqrt(np.mean(mix**2)) * 10 ** (db / 20)
    return mix + level * rng.standard_normal(mix.shape), f"noise {db:.0f} dB"


def fit_length(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut or padded with silence to a length."""
    return np.pad(audio, ((0, 0), (0, max(0, samples - audio.shape[1]))))[:, :samples]


HARMLESS: tuple[Change, ...] = (offset, drift, gain, balance, polarity, swap)
PROCESSED: tuple[Change, ...] = (codec, shelf, limiter, noise)
BROKEN: tuple[Change, ...] = (slip, edit, mono)


def coded(mix: np.ndarray, kind: str, kbps: float) -> np.ndarray:
    """Through a codec, at about so many kilobits per second."""
    container, subtype, rate = ("OGG", "OPUS", 48000) if kind == "OPUS" else (kind, "MPEG_LAYER_III", RATE)
    settings: dict[str, Any] = {"bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    low, high = 0.0, 1.0  # of libsndfile's compression level
    for _ in range(7):
        level = (low + high) / 2
        data = encode(mix, container, subtype, rate, compression_level=level, **settings)
        found = 8e-3 * len(data) / (mix.shape[1] / RATE)
        low, high = (level, high) if found > kbps else (low, level)
    return fit_length(decode(data).astype(float), mix.shape[1])


def each(truth: np.ndarray, rest: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every change by itself: its name, the stem and the mix (2, T)."""
    from pedalboard import HighShelfFilter, LowShelfFilter, Pedalboard

    mix, stem = truth + rest, truth + BLEED * rest
    half, nothing = mix.shape[1] // 2, np.array([[1.0], [0.0]])

    def board(plugin: object) -> np.ndarray:
        return Pedalboard([plugin])(mix.astype(np.float32), RATE).astype(float)

    yield "as it is", stem, mix
    yield "instrumental", stem, rest
    yield "one channel of the stem inverted", stem * np.array([[1.0], [-1.0]]), mix
    yield "left and right swapped", stem, mix[::-1]
    yield "50 ppm fast", stem, fit_length(soxr.resample(mix.T, 1_000_000, 999_950, quality="VHQ").T, mix.shape[1])
    for samples in (500, 5):
        yield f"slip of {samples} samples", stem, np.concatenate([mix[:, :half], shift(mix, samples)[:, half:]], axis=1)
    yield (
        "second half from elsewhere",
        stem,
        np.concatenate([mix[:, :half], np.roll(mix, half // 2, axis=1)[:, half:]], axis=1),
    )
    yield "mono mix", stem, np.repeat(mix.mean(axis=0, keepdims=True), 2, axis=0)
    yield "balance 2 dB off", stem, mix * 10 ** (np.array([[1.0], [-1.0]]) / 20)
    yield "dead channel of the stem", stem * nothing, mix
    yield "dead channel of the mix", stem, mix * nothing
    for kind, kbps in (("OPUS", 96), ("MP3", 96), ("MP3", 128), ("MP3", 192), ("MP3", 320)):
        yield f"{kind.title()} {kbps} kbit/s", stem, coded(mix, kind, kbps)
    yield "limiter 3 dB", stem, limited(mix, 3.0)
    for db in (3, -3):
        yield f"low shelf {db:+d} dB", stem, board(LowShelfFilter(cutoff_frequency_hz=250, gain_db=db))
        yield f"high shelf {db:+d} dB", stem, board(HighShelfFilter(cutoff_frequency_hz=4000, gain_db=db))


@dataclass(frozen=True)
class Draw:
    """A stem, its true stem, the mix that is given and the true one, all (2, T); what was done to the mix, and its
    kind."""

    stem: np.ndarray
    truth: np.ndarray
    mix: np.ndarray
    clean: np.ndarray
    done: str
    kind: str


def draw(truth: np.ndarray, rest: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Draw:
    """A random chain. other: the mix of another song."""
    clean = truth + rest
    stem = truth + (BLEED * rest if rng.random() < 0.7 else 0.0)
    mix, done, kind = clean, [], "harmless"
    chance = rng.random()
    if chance < 0.08:
        mix, kind = rest, "instrumental"
    elif chance < 0.16:
        mix, kind = other, "wrong song"
    pools = [(HARMLESS, 0.6)] * 2
    if kind == "harmless" and chance > 0.5:
        extra, kind = ((PROCESSED, "processed"), (BROKEN, "broken"))[rng.integers(2)]
        pools.append((extra, 1.0))
    for pool, likely in pools:
        if rng.random() < likely:
            mix, what = pool[rng.integers(len(pool))](mix, rng)
            done.append(what)
    return Draw(stem, truth, mix, clean, ", ".join(done) or "as it is", kind)
