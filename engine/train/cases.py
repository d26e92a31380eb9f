"""Makes cases for `stemprover validate` from held-out splits of the pool: real separators' stems and simulated faults.

    python -m stemprover.engine.train.cases data/pool cases --split valid valid-other test --simulated 8
    stemprover validate cases/test -o validation

Writes cases/<split>/<kind>/<item>/truth.flac, degraded.flac and mix.flac. The kinds are:

- separated-vocals and separated-accompaniment: one case for each item of the split in which that stem is audible
- four-stems-drums, -bass, -other and -vocals: if the pool has items of the second separator (corpus/four_stems.py)
- the five simulated faults, and `mixed`, two of them in succession: `--simulated` cases each, severities 0.35 to 1
- unknown-masks, known-masks and so on for each family of faults: `--faulty` cases each, of mechanisms that are never
  trained on, and of those that are; the item's name has the mechanism and the stem's role
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from ..errors import StemProverError, TrainingError
from ..stem_names import ROLES
from .corpus.faulty import faulty_shards
from .corpus.pool import FULL_SCALE, SAMPLE_RATE, TRACKS, open_shard, shards_of
from .corpus.simulated_faults import SIMULATORS
from .faults.registry import MECHANISMS

QUIETEST = 3e-3  # RMS below which a stem is too quiet for a case
STEMS = {"vocals": "v", "accompaniment": "a"}
MIXED, CLEAN = "mixed", "clean"


def separated(
    pool: Path, split: str, most: int | None = None, roles: str = "av"
) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """Kind, item and audio (2, T) by role of each case from the real separator; `most` of each kind, evenly spread. In
    a pool made without a separator (corpus/true_stems.py) the stems are true ones, of the kind CLEAN."""
    items = _items(pool, split)
    for stem, letter in ((stem, letter) for stem, letter in STEMS.items() if letter in roles):
        audible = [number for number, tracks in enumerate(items) if _is_audible(_track(tracks, f"x_{letter}"))]
        for number in spread(audible, most):
            tracks = items[number]
            mix = _track(tracks, "x_v") + _track(tracks, "x_a")
            truth, degraded = _track(tracks, f"x_{letter}"), _track(tracks, f"y_{letter}_zeros")
            kind = CLEAN if np.array_equal(truth, degraded) else f"separated-{stem}"
            yield kind, f"{number:03d}", {"truth": truth, "degraded": degraded, "mix": mix}


def four_stems(pool: Path, split: str) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """As `separated`, for the second separator's stems, if the split has any."""
    for path in shards_of(pool, split):
        for tracks, info in zip(*open_shard(path), strict=True):
            if "stem" in info:
                truth, degraded = _track(tracks, "x_v"), _track(tracks, "y_v_zeros")
                audio = {"truth": truth, "degraded": degraded, "mix": truth + _track(tracks, "x_a")}
                yield f"four-stems-{info['stem']}", f"{info['item']}", audio


def simulated(
    pool: Path, split: str, count: int, seed: int, roles: str = "av"
) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """As `separated`, with `count` cases of each simulated kind, from the tracks x_a and x_v in turn or from one
    alone."""
    items = _items(pool, split)
    for kind in (*SIMULATORS, MIXED):
        rng = np.random.default_rng([seed, len(kind), *kind.encode()])
        made = 0
        for number in rng.permutation(len(items)):
            letter = roles[made % len(roles)]
            other = "v" if letter == "a" else "a"
            truth, residual = _track(items[number], f"x_{letter}"), _track(items[number], f"x_{other}")
            if made == count:
                break
            if not _is_audible(truth):
                continue
            names = [kind] if kind in SIMULATORS else list(rng.permutation(list(SIMULATORS))[:2])
            degraded = truth
            for name in names:
                degraded = SIMULATORS[name](degraded, residual, float(rng.uniform(0.35, 1.0)), rng)
            made += 1
            yield kind, f"{number:03d}", {"truth": truth, "degraded": degraded, "mix": truth + residual}


def faulty(pool: Path, split: str, count: int) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """As `separated`, with up to `count` cases of each family of faults, unknown and known, from the shards of faulty
    stems (corpus/faulty.py)."""
    made: Counter[str] = Counter()
    for path in faulty_shards(pool, split):
        for item, info in zip(*open_shard(path), strict=True):
            truth, rest, *versions = item.astype(np.float32) / np.float32(FULL_SCALE)
            for version, (degraded, names) in enumerate(zip(versions, info["faults"], strict=True)):
                if len(names) != 1 or not _is_audible(truth):
                    continue
                mechanism = MECHANISMS[names[0]]
                kind = f"{'unknown' if mechanism.unknown else 'known'}-{mechanism.family}"
                if made[kind] < count:
                    made[kind] += 1
                    name = f"{info['item']}-{version}-{mechanism.name}-{info['role']}"
                    yield kind, name, {"truth": truth, "degraded": degraded, "mix": truth + rest}


def mechanism_of(case: str) -> str:
    """What made the fault of a case, as far as the name of its folder says it: without numbers and the role."""
    return "-".join(word for word in case.split("-") if not word.isdigit() and word not in ROLES)


def write_case(folder: Path, audio: dict[str, np.ndarray]) -> None:
    """Write truth.flac, degraded.flac and mix.flac (24 bit), all turned down if one peaks above full scale."""
    folder.mkdir(parents=True, exist_ok=True)
    peak = max(1.0, *(float(np.abs(waveform).max()) for waveform in audio.values()))
    for name, waveform in audio.items():
        soundfile.write(folder / f"{name}.flac", (waveform / peak).T, SAMPLE_RATE, subtype="PCM_24")


def written_cases(folder: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each case under `folder`/<kind>/<item>. Raises TrainingError if there is none."""
    found = [(path.parent.parent.name, path.parent) for path in sorted(folder.glob("*/*/truth.flac"))]
    if not found:
        raise TrainingError(
            f"{folder} holds no cases; make some with python -m stemprover.engine.train.cases (see --help)"
        )
    return found


def read_case(folder: Path) -> dict[str, np.ndarray]:
    """The audio (2, T) of a case by role: truth, degraded and mix."""
    return {
        role: soundfile.read(folder / f"{role}.flac", dtype="float32")[0].T for role in ("truth", "degraded", "mix")
    }


def _items(pool: Path, split: str) -> list[np.ndarray]:
    """Spleeter's items of a split. Those of the second separator name a stem."""
    return [
        item
        for path in shards_of(pool, split)
        for item, info in zip(*open_shard(path), strict=True)
        if "stem" not in info
    ]


def _track(item: np.ndarray, name: str) -> np.ndarray:
    return item[TRACKS.index(name)].astype(np.float32) / np.float32(FULL_SCALE)


def _is_audible(audio: np.ndarray) -> bool:
    return float(np.sqrt(np.mean(audio**2))) > QUIETEST


def spread(numbers: list[int], most: int | None) -> list[int]:
    """`most` of the numbers, evenly spread; all of them if there are no more or `most` is None."""
    if most is None or len(numbers) <= most:
        return numbers
    return [numbers[i] for i in np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def select_cases(cases: Sequence[tuple[str, Path]], most: int | None) -> list[tuple[str, Path]]:
    """`most` cases of each kind, evenly spread."""
    chosen = []
    for kind in dict.fromkeys(kind for kind, _ in cases):
        mine = [case for case in cases if case[0] == kind]
        chosen += [mine[i] for i in spread(list(range(len(mine))), most)]
    return chosen


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path, help="the training pool")
    parser.add_argument("out", type=Path, help="folder to write the cases into")
    parser.add_argument(
        "--split", nargs="+", default=["valid", "valid-other", "test"], help="splits (valid valid-other test)"
    )
    parser.add_argument("--separated", type=int, default=None, help="real separators' cases of each stem (all)")
    parser.add_argument("--simulated", type=int, default=0, help="cases of each simulated kind (0)")
    parser.add_argument("--faulty", type=int, default=0, help="cases of each family of faults, unknown and known (0)")
    parser.add_argument("--roles", choices=("av", "v", "a"), default="av", help="stems: v vocals, a accompaniment (av)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulated faults (1)")
    given = parser.parse_args()
    try:
        for split in given.split:
            real = chain(separated(given.pool, split, given.separated, given.roles), four_stems(given.pool, split))
            count = 0
            made = simulated(given.pool, split, given.simulated, given.seed, given.roles)
            broken = faulty(given.pool, split, given.faulty)
            for kind, item, audio in chain(real, made, broken):
                write_case(given.out / split / kind / item, audio)
                count += 1
            print(f"{given.out / split}: {count} cases", flush=True)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    main()
