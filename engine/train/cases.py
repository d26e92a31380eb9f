"""Cases for `stemprover validate` from held-out splits of the pool: what the real separator made, and simulated faults.

    python -m stemprover.engine.train.cases data/pool cases --split valid valid-other test --simulated 8
    stemprover validate cases/test -o validation

writes cases/<split>/<type>/<item>/truth.flac, degraded.flac and mix.flac. Types: separated-vocals and
separated-accompaniment, one case for each item of the split in which that stem sounds; four-stems-drums, -bass, -other
and -vocals, where the pool has items of the second separator (four_stems.py); and, `--simulated` of each, the five
artefacts and `mixed`, two of them one after the other, at severities of 0.35 to 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from ..errors import StemProverError, TrainingError
from .corpus.artefacts import SIMULATORS
from .corpus.pool import FULL_SCALE, SAMPLE_RATE, TRACKS, open_shard, shards_of

QUIETEST = 3e-3  # root mean square; a stem below it says nothing
STEMS = {"vocals": "v", "accompaniment": "a"}
MIXED, CLEAN = "mixed", "clean"


def separated(
    pool: Path, split: str, most: int | None = None, roles: str = "av"
) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """Type, item and sounds (2, T) by role of each case from the real separator; `most` of each type, spread evenly. In
    a pool that no separator was used for (true_stems.py) they are true stems: type CLEAN."""
    items = _items(pool, split)
    for stem, letter in ((stem, letter) for stem, letter in STEMS.items() if letter in roles):
        heard = [number for number, tracks in enumerate(items) if _sounds(_track(tracks, f"x_{letter}"))]
        for number in spread(heard, most):
            tracks = items[number]
            mix = _track(tracks, "x_v") + _track(tracks, "x_a")
            truth, degraded = _track(tracks, f"x_{letter}"), _track(tracks, f"y_{letter}_zeros")
            kind = CLEAN if np.array_equal(truth, degraded) else f"separated-{stem}"
            yield kind, f"{number:03d}", {"truth": truth, "degraded": degraded, "mix": mix}


def four_stems(pool: Path, split: str) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """As `separated`, of the second separator's stems, where the split has any."""
    for path in shards_of(pool, split):
        for tracks, info in zip(*open_shard(path), strict=True):
            if "stem" in info:
                truth, degraded = _track(tracks, "x_v"), _track(tracks, "y_v_zeros")
                sounds = {"truth": truth, "degraded": degraded, "mix": truth + _track(tracks, "x_a")}
                yield f"four-stems-{info['stem']}", f"{info['item']}", sounds


def simulated(
    pool: Path, split: str, count: int, seed: int, roles: str = "av"
) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """As `separated`, with `count` cases of each simulated type, of the tracks x_a and x_v in turn or of one alone."""
    items = _items(pool, split)
    for kind in (*SIMULATORS, MIXED):
        rng = np.random.default_rng([seed, len(kind), *kind.encode()])
        made = 0
        for number in rng.permutation(len(items)):
            letter = roles[made % len(roles)]
            other = "v" if letter == "a" else "a"
            truth, rest = _track(items[number], f"x_{letter}"), _track(items[number], f"x_{other}")
            if made == count:
                break
            if not _sounds(truth):
                continue
            names = [kind] if kind in SIMULATORS else list(rng.permutation(list(SIMULATORS))[:2])
            degraded = truth
            for name in names:
                degraded = SIMULATORS[name](degraded, rest, float(rng.uniform(0.35, 1.0)), rng)
            made += 1
            yield kind, f"{number:03d}", {"truth": truth, "degraded": degraded, "mix": truth + rest}


def write_case(folder: Path, sounds: dict[str, np.ndarray]) -> None:
    """truth.flac, degraded.flac and mix.flac (24 bit). A peak over full scale brings all three down."""
    folder.mkdir(parents=True, exist_ok=True)
    peak = max(1.0, *(float(np.abs(sound).max()) for sound in sounds.values()))
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.flac", (sound / peak).T, SAMPLE_RATE, subtype="PCM_24")


def written_cases(folder: Path) -> list[tuple[str, Path]]:
    """Type and folder of each case that `write_case` has left under FOLDER/<type>/<item>. Raises TrainingError where
    there is none."""
    found = [(path.parent.parent.name, path.parent) for path in sorted(folder.glob("*/*/truth.flac"))]
    if not found:
        raise TrainingError(f"{folder} holds no cases; make them: python -m stemprover.engine.train.cases --help")
    return found


def read_case(folder: Path) -> dict[str, np.ndarray]:
    """The sounds (2, T) of a case by role, as they were given to `write_case`."""
    return {
        role: soundfile.read(folder / f"{role}.flac", dtype="float32")[0].T for role in ("truth", "degraded", "mix")
    }


def _items(pool: Path, split: str) -> list[np.ndarray]:
    """Items of Spleeter's: the second separator's have a stem's name."""
    return [
        item
        for path in shards_of(pool, split)
        for item, info in zip(*open_shard(path), strict=True)
        if "stem" not in info
    ]


def _track(item: np.ndarray, name: str) -> np.ndarray:
    return item[TRACKS.index(name)].astype(np.float32) / np.float32(FULL_SCALE)


def _sounds(audio: np.ndarray) -> bool:
    return float(np.sqrt(np.mean(audio**2))) > QUIETEST


def spread(numbers: list[int], most: int | None) -> list[int]:
    """`most` of the numbers, evenly spread; all where there are no more, or `most` is None."""
    if most is None or len(numbers) <= most:
        return numbers
    return [numbers[i] for i in np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", nargs="+", default=["valid", "valid-other", "test"])
    parser.add_argument("--separated", type=int, default=None, help="cases of each stem (all there are)")
    parser.add_argument("--simulated", type=int, default=0, help="cases of each simulated type")
    parser.add_argument("--roles", choices=("av", "v", "a"), default="av", help="of which of the pool's stems")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        for split in given.split:
            real = chain(
                separated(given.pool, split, given.separated, given.roles), four_stems(given.pool, split)
            )
            count = 0
            made = simulated(given.pool, split, given.simulated, given.seed, given.roles)
            for kind, item, sounds in chain(real, made):
                write_case(given.out / split / kind / item, sounds)
                count += 1
            print(f"{given.out / split}: {count} cases", flush=True)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
