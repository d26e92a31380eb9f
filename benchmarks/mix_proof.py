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
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..engine.metrics.basic import si_sdr
from ..engine.mix.guard import MixGuard
from ..engine.repair import Repairer
from ..offline.audiofile import probe
from ..offline.auto import AutoChoice
from ..offline.batch import BatchListener, repair_batch
from ..offline.plan import plan_batch
from ..offline.proof import prove
from .mix_changes import BLEED, RATE, Draw, draw, each

HIGHEST_DB = 40.0  # of SI-SDR: what is above counts as this
MAX_HARM_DB = 0.5
USABLE = ("harmless", "processed")  # kinds of draws that are compared with the clean mix
COST_S, COST_BLOCK = 60, 512
Material = list[tuple[np.ndarray, np.ndarray]]


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
            failures = repair_batch(plan, self._choice, Listener())
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
