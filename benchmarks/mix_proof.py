"""What a wrong or slightly different mix does to a stem: random chains of changes to the mix, then a repair with auto.

    python -m stemprover.benchmarks.mix_proof SONGS --draws 500 --jobs 2
    python -m stemprover.benchmarks.mix_proof SONGS --only 52
    python -m stemprover.benchmarks.mix_proof SONGS --each
    python -m stemprover.benchmarks.mix_proof --cost

SONGS is a folder of true stems, <song>/<stem>.wav. Without it the demo's song is used. A stem is a true one, or holds
12% of the rest of its song. Prints each draw that came out worse than it went in by more than 0.5 dB (and than with the
clean mix), and a table by kind. A draw depends on --seed and its number alone; --only repeats one. With --each, every
change by itself. With --cost, what the proof of a file and that of a live side-chain take of one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ..engine.dsp.codec import decode, encode
from ..engine.metrics.basic import si_sdr
from ..engine.mix.guard import MixGuard
from ..engine.repair import Repairer
from ..offline.audiofile import probe
from ..offline.auto import AutoChoice
from ..offline.batch import BatchListener, repair_batch
from ..offline.plan import plan_batch
from ..offline.proof import prove

RATE = 44100
HIGHEST_DB = 40.0  # of SI-SDR: what is above counts as this
MAX_HARM_DB = 0.5
BLEED = 0.12
USABLE = ("harmless", "processed")  # kinds of draws that are compared with the clean mix
COST_S, COST_BLOCK = 60, 512
Material = list[tuple[np.ndarray, np.ndarray]]
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
    from pedalboard import Limiter, Pedalboard

    peak = 20 * np.log10(np.abs(mix).max() + 1e-9)
    db = float(rng.uniform(1, 3))
    board = Pedalboard([Limiter(threshold_db=peak - db, release_ms=100)])
    found = board(mix.astype(np.float32), RATE).astype(float)
    return found * (10 ** ((peak - db) / 20) / max(np.abs(found).max(), 1e-9)), f"limiter {db:.1f} dB"


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
    from pedalboard import HighShelfFilter, Limiter, LowShelfFilter, Pedalboard

    mix, stem = truth + rest, truth + BLEED * rest
    half, nothing = mix.shape[1] // 2, np.array([[1.0], [0.0]])
    peak = 20 * np.log10(np.abs(mix).max())

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
    limited = board(Limiter(threshold_db=peak - 3, release_ms=100))
    yield "limiter 3 dB", stem, limited * 10 ** ((peak - 3) / 20) / np.abs(limited).max()
    for db in (3, -3):
        yield f"low shelf {db:+d} dB", stem, board(LowShelfFilter(cutoff_frequency_hz=250, gain_db=db))
        yield f"high shelf {db:+d} dB", stem, board(HighShelfFilter(cutoff_frequency_hz=4000, gain_db=db))


def print_each(songs: Path | None, seed: int, seconds: float, count: int) -> None:
    """A table of every change by itself, over `count` excerpts."""
    rng, (material, repairs) = np.random.default_rng(seed), tools(songs)
    rows: dict[str, list[float]] = defaultdict(list)
    said: dict[str, str] = {}
    for truth, rest in (excerpt(material, rng, seconds) for _ in range(count)):
        for name, stem, mix in each(truth, rest):
            found, said[name] = repairs(stem, mix)
            true = truth * np.sign((stem * truth).sum(axis=1, keepdims=True))  # a dead channel is silent
            before, after = (min(HIGHEST_DB, si_sdr(x, true)) for x in (stem, found))
            rows[name].append(after - before)
    print("| mix | median | worst | clean mix's gain less 1 dB, or left out | said of the last |")
    print("|---|---|---|---|---|")
    best = np.array(rows["as it is"])
    for name, values in rows.items():
        enough = np.mean((np.array(values) > best - 1.0) | (np.abs(values) < 0.01))
        print(f"| {name} | {np.median(values):+.2f} dB | {min(values):+.2f} dB | {100 * enough:.0f}% | {said[name]} |")


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


class Repairs:
    """Repairs stems with auto through files, as the command line does."""

    def __init__(self) -> None:
        self._choice = AutoChoice(partial(Repairer, jobs=1))

    def __call__(self, stem: np.ndarray, mix: np.ndarray) -> tuple[np.ndarray, str]:
        """The repaired stem (2, T), and what was said about the mix."""
        notes: list[str] = []

        class Listener(BatchListener):
            def repaired(self, job: object, report: object) -> None:
                notes.extend(report.notes)  # type: ignore[attr-defined]

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, audio in (("stem", stem), ("mix", mix)):
                soundfile.write(folder / f"{file}.wav", audio.T, RATE, subtype="FLOAT")
            plan = plan_batch([folder / "stem.wav"], folder / "out.wav", mix=folder / "mix.wav")
            failures = repair_batch(plan, self._choice, Listener(), mix=folder / "mix.wav")
            if failures:
                return stem, f"refused: {failures[0][1]}"
            return soundfile.read(folder / "out.wav", dtype="float64", always_2d=True)[0].T, "; ".join(notes)


def change_db(found: np.ndarray, one: Draw) -> float:
    """How much nearer to the true stem the repair is than the stem, in dB of SI-SDR."""
    before, after = (min(HIGHEST_DB, si_sdr(x, one.truth)) for x in (one.stem, found))
    return after - before


def is_harm(change: float, best: float) -> bool:
    """Whether the mix has made the stem worse: by more than half a decibel, and than the clean mix would."""
    return change < min(0.0, best) - MAX_HARM_DB


def load_material(songs: Path | None) -> Material:
    """True stems and the rests of their songs (2, T); of the demo's song if there is no folder."""
    if songs is None:
        from ..offline.audiofile import read_start

        demo = Path(__file__).parent.parent / "presets" / "demo"
        truth, mix = (read_start(demo / f"{name}.flac") for name in ("truth", "song"))
        return [(truth, mix - truth)]
    material = []
    for folder in sorted(path for path in songs.iterdir() if path.is_dir()):
        stems = [_read(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in (".wav", ".flac", ".ogg")]
        if len(stems) > 1:
            length = min(stem.shape[1] for stem in stems)
            total = np.sum([stem[:, :length] for stem in stems], axis=0)
            material += [(stem[:, :length], total - stem[:, :length]) for stem in stems]
    return material


def excerpt(material: Material, rng: np.random.Generator, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """An excerpt of a true stem and the rest of its song (2, T), both audible."""
    count = round(seconds * RATE)
    while True:
        truth, rest = material[rng.integers(len(material))]
        start = int(rng.integers(max(1, truth.shape[1] - count)))
        parts = truth[:, start : start + count], rest[:, start : start + count]
        if all(np.sqrt(np.mean(part**2)) > 3e-3 for part in parts):
            return parts[0].astype(float), parts[1].astype(float)


def _read(file: Path) -> np.ndarray:
    audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
    audio = audio if rate == RATE else soxr.resample(audio, rate, RATE)
    return np.repeat(audio.T, 2, axis=0) if audio.shape[1] == 1 else audio.T[:2]


@dataclass(frozen=True)
class Result:
    """What became of a draw: the change and that with the clean mix in dB, and what was said about the mix."""

    number: int
    kind: str
    done: str
    change_db: float
    best_db: float
    said: str

    @property
    def is_harm(self) -> bool:
        """As `is_harm`."""
        return is_harm(self.change_db, self.best_db)

    def __str__(self) -> str:
        change = f"{self.change_db:+.1f} dB (clean mix {self.best_db:+.1f})"
        return f"{self.number}: {self.kind}, {self.done}: {change}: {self.said}"


def nth_draw(material: Material, seed: int, number: int, seconds: float) -> Draw:
    """A draw by its number."""
    rng = np.random.default_rng([seed, number])
    (truth, rest), (a, b) = excerpt(material, rng, seconds), excerpt(material, rng, seconds)
    return draw(truth, rest, np.roll(a + b, a.shape[1] // 2, axis=1), rng)


@cache
def tools(songs: Path | None) -> tuple[Material, Repairs]:
    """The material and what repairs it, made once for each process."""
    return load_material(songs), Repairs()


def repair_draw(songs: Path | None, seed: int, seconds: float, number: int) -> Result:
    """Repairs one draw, and the same stem with the clean mix."""
    material, repairs = tools(songs)
    one = nth_draw(material, seed, number, seconds)
    out, said = repairs(one.stem, one.mix)
    change = best = change_db(out, one)
    if one.kind in USABLE or change < -MAX_HARM_DB:
        best = change_db(repairs(one.stem, one.clean)[0], one)
    return Result(number, one.kind, one.done, change, best, said)


def run(songs: Path | None, numbers: Sequence[int], seed: int, seconds: float, jobs: int) -> list[Result]:
    """What became of draws; harm is printed at once."""
    found = []
    with ProcessPoolExecutor(jobs) as pool:
        for result in pool.map(partial(repair_draw, songs, seed, seconds), numbers):
            found.append(result)
            if result.is_harm or len(numbers) == 1:
                print(result, flush=True)
    return found


def print_cost(songs: Path | None) -> None:
    """A table: processor time of the proofs, as a share of the audio's length."""
    truth, rest = load_material(songs)[0]
    count = COST_S * RATE
    parts = [np.resize(audio.T, (count, 2)).T.astype(np.float32) for audio in (truth + BLEED * rest, truth + rest)]
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{what}.wav" for what in ("stem", "mix")]
        for file, audio in zip(files, parts, strict=True):
            soundfile.write(file, audio.T, RATE)
        infos = probe(files[0]), probe(files[1])
        began = time.process_time()
        prove(*infos)
        file_s = time.process_time() - began
    guard, blocks = MixGuard(RATE, 2), []
    began = time.process_time()
    for start in range(0, count - COST_BLOCK, COST_BLOCK):
        since = time.perf_counter()
        guard.process(*(audio[:, start : start + COST_BLOCK] for audio in parts))
        blocks.append(time.perf_counter() - since)
    guard_s = time.process_time() - began
    print("| proof | share of one core | longest block |")
    print("|---|---|---|")
    print(f"| of a file of {COST_S} s | {100 * file_s / COST_S:.1f}% | |")
    longest = f"{1000 * max(blocks):.1f} of {1000 * COST_BLOCK / RATE:.1f} ms"
    print(f"| of a side-chain, in blocks of {COST_BLOCK} | {100 * guard_s / COST_S:.1f}% | {longest} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("songs", nargs="?", type=Path)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER")
    parser.add_argument("--each", type=int, metavar="EXCERPTS", nargs="?", const=10)
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    if options.cost:
        print_cost(options.songs)
        return
    if options.each:
        print_each(options.songs, options.seed, options.seconds, options.each)
        return
    numbers = range(options.draws) if options.only is None else [options.only]
    found = run(options.songs, numbers, options.seed, options.seconds, options.jobs)
    rows = defaultdict(list)
    for result in found:
        rows[result.kind].append((result.change_db, result.best_db))
    print(
        "| mix | draws | worse by more than 0.5 dB | worst | median | with the clean mix | less than 1 dB behind it |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind, pairs in rows.items():
        changes, bests = (np.array(column) for column in zip(*pairs, strict=True))
        behind = f"{100 * np.mean(changes > bests - 1.0):.0f}%" if kind in USABLE else ""
        with_clean = f"{np.median(bests):+.2f} dB" if behind else ""
        harmed = sum(is_harm(*pair) for pair in pairs)
        worst, median = (f"{value:+.2f} dB" for value in (changes.min(), np.median(changes)))
        print(f"| {kind} | {len(pairs)} | {harmed} | {worst} | {median} | {with_clean} | {behind} |")
    sys.exit(1 if any(result.is_harm for result in found) else 0)


if __name__ == "__main__":
    main()
