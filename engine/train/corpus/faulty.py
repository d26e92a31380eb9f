"""Shards of faulty stems: each item is a true stem, the rest of its song, and several versions of the stem with faults
(train/faults/).

A shard is int16 of shape (items, 2 + VERSIONS, 2, T), as the pool's others are (pool.py): stem, rest, and the versions.
faulty_000.json says what each version's faults are. Crops are cut anywhere in an item, so one simulation serves many
steps of a training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..faults.factory import damage, known, unknown
from ..faults.registry import Mechanism
from .pool import ITEM_SAMPLES, ITEMS_PER_SHARD, make_shard, quantise
from .remix import Remix, RemixConfig, Remixer
from .sources import Source
from .stem_remix import StemLibrary, StemRemixer, has_every_stem

VERSIONS, FIRST_VERSION = 4, 2
TRACKS = ("stem", "rest", *(f"faulty_{n}" for n in range(VERSIONS)))
#: How often each kind of stem is drawn.
ROLE_WEIGHTS = {"vocals": 0.32, "accompaniment": 0.2, "drums": 0.17, "bass": 0.12, "other": 0.19}
PREFIX = "faulty"
_FIRST_ITEM = 1_000_000  # so that no item is drawn with a generator of the pool's
_PEAK = 0.98


class FaultyMaker:
    """Draws items of one split, with up to `most` mechanisms a version, which are chosen from `groups` in turn. Without
    sources for each instrument there are vocals and accompaniment alone."""

    def __init__(
        self, sources: Sequence[Source], groups: Sequence[Sequence[Mechanism]], length: int = ITEM_SAMPLES,
        config: RemixConfig | None = None, most: int = 3,
    ) -> None:  # fmt: skip
        self.groups, self.most = groups, most
        self._remixer = Remixer(list(sources), length, config)
        library = StemLibrary.of(sources) if has_every_stem(sources) else None
        self._stems = (
            {} if library is None else {s: StemRemixer(library, s, length) for s in ("drums", "bass", "other")}
        )

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, Any]]:
        """Tracks (2 + VERSIONS, 2, T) int16 of one item, and its description."""
        roles = [role for role in ROLE_WEIGHTS if role in self._stems or role in ("vocals", "accompaniment")]
        weights = np.array([ROLE_WEIGHTS[role] for role in roles])
        role = roles[rng.choice(len(roles), p=weights / weights.sum())]
        remix = self._remix(role, rng)
        stem, rest = (remix.band, remix.vocals) if role == "accompaniment" else (remix.vocals, remix.band)
        groups = [self.groups[version % len(self.groups)] for version in range(VERSIONS)]
        found = [damage(stem, rest, rng, group, self.most) for group in groups]
        tracks = np.stack([stem, rest, *(one.audio for one in found)])
        tracks *= np.float32(min(1.0, _PEAK / max(float(np.abs(tracks).max()), 1e-6)))
        info = {
            "role": role, "faults": [list(one.mechanisms) for one in found],
            "si_sdr_db": [round(min(one.si_sdr_db, 99.0), 1) for one in found], **remix.info,
        }  # fmt: skip
        return quantise(tracks), info

    def _remix(self, role: str, rng: np.random.Generator) -> Remix:
        return self._stems[role].draw(rng) if role in self._stems else self._remixer.draw(rng)


def faulty_shards(pool: Path, split: str) -> list[Path]:
    """The finished shards of a split, in order."""
    return sorted((pool / split).glob(f"{PREFIX}_[0-9]*.npy"))


def build_faulty(
    pool: Path, split: str, sources: Sequence[Source], shards: range, *, seed: int, items: int = ITEMS_PER_SHARD,
    length: int = ITEM_SAMPLES, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Make the missing shards of a split. Training has compositions of the known mechanisms; held-out splits have
    unknown and known ones in turn, each by itself. Returns the new files."""
    trains = split == "train"
    maker = FaultyMaker(
        [source for source in sources if source.split == split], [known()] if trains else [unknown(), known()], length,
        RemixConfig(vary=split != "test"), 3 if trains else 1,
    )  # fmt: skip
    made = []
    for number in shards:
        if not (pool / split / f"{PREFIX}_{number:03d}.npy").exists():
            numbers = range(_FIRST_ITEM + number * items, _FIRST_ITEM + (number + 1) * items)
            made.append(
                make_shard(
                    pool, split, number, numbers, maker.draw, seed=seed, separator="none", prefix=PREFIX, names=TRACKS,
                    say=say,
                )
            )  # fmt: skip
    return made
