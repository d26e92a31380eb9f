"""`stemprover corpus build`: a pool of training material and its manifest, made from packages and folders of stems.

Each step skips what is finished, so an interrupted build continues when the command is run again. Packages, rendered
songs and singing are kept in the cache, shards and manifest in the corpus's folder.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import manifest
from .collect import count_training_songs, make_sources
from .faulty import VERSIONS, build_faulty, faulty_shards
from .four_stems import FourStems, train_four_stems, weights_path
from .pool import (
    ITEM_SAMPLES,
    ITEMS_PER_SHARD,
    TRACKS,
    Separate,
    build_remixes,
    build_songs,
    make_shard,
    open_shard,
    separated_tracks,
    shard_paths,
)
from .remix import RemixConfig
from .sources import ROLES, SAMPLE_RATE, SPLITS, CorpusError, Source, cache_dir
from .spleeter import Spleeter
from .stem_remix import STEMS, StemLibrary, StemRemixer, has_every_stem

HELD_OUT_ITEMS = 40
#: Extra items separated by the second separator, relative to Spleeter's.
FOUR_STEMS_SHARE = 0.25
FAULTY_SHARE = 1.0
#: How long the second separator is trained if it has no weights yet.
FOUR_STEMS_MINUTES = 15.0
ITEM_S = ITEM_SAMPLES / SAMPLE_RATE
#: Shards from this number on are the second separator's, those below are Spleeter's.
_FIRST_FOUR_STEMS_SHARD = 1000
#: From this many training songs on, most vocals are the songs' own singers (RemixConfig.singers).
_MANY_SONGS, _SINGERS_OF_MANY_SONGS = 20, (0.20, 0.60, 0.20)
_MAKE_STAMP = ".ready"  # written by the Makefile
_MADE_BY = "stemprover corpus build"


@dataclass(frozen=True)
class CorpusOptions:
    """What to build.

    stems: folders of true stems. hours: of training items separated by Spleeter. packages: use Debian packages too.
    items_held_out: in each held-out split of remixes. four_stems: extra items separated by the second separator,
    relative to Spleeter's. faulty: items with simulated faults (faulty.py), relative to Spleeter's. Raises CorpusError
    for values out of range.
    """

    folder: Path
    stems: tuple[Path, ...] = ()
    hours: float = 8.0
    packages: bool = True
    seed: int = 1
    items_held_out: int = HELD_OUT_ITEMS
    four_stems: float = FOUR_STEMS_SHARE
    faulty: float = FAULTY_SHARE
    item_samples: int = ITEM_SAMPLES
    per_shard: int = ITEMS_PER_SHARD

    def __post_init__(self) -> None:
        if not 0 < self.hours < math.inf:
            raise CorpusError(f"hours={self.hours:g} is out of range: use a number above 0")
        for name in ("four_stems", "faulty"):
            if not 0 <= getattr(self, name) <= 1:
                raise CorpusError(f"{name}={getattr(self, name):g} is out of range: use a number from 0 to 1")
        if not self.packages and not self.stems:
            raise CorpusError("nothing to build from: pass a folder with --stems, or drop --no-packages")

    @property
    def items(self) -> dict[str, int]:
        """Items in each split of remixes. Training shards are full, so that more hours later only add shards."""
        train = math.ceil(self.hours * 3600 * SAMPLE_RATE / self.item_samples / self.per_shard - 1e-6) * self.per_shard
        return {"valid-other": self.items_held_out, "test": self.items_held_out, "train": train}

    def four_stems_shards(self, split: str) -> tuple[int, int]:
        """(shards, items per shard) of the second separator. The shards cycle through its stems.

        Held-out splits get as many items from it as from Spleeter.
        """
        if split != "train":
            return (len(STEMS), -(-self.items[split] // len(STEMS))) if self.four_stems else (0, 1)
        turns = math.ceil(self.four_stems * self.items[split] / (self.per_shard * len(STEMS)) - 1e-6)
        return turns * len(STEMS), self.per_shard

    def faulty_shards(self, split: str) -> int:
        """Shards of faulty stems; the song that is held out counts as a split of remixes here."""
        items = self.items_held_out if split == "valid" else self.items[split]
        return math.ceil(self.faulty * items / self.per_shard - 1e-6)


def build_corpus(
    options: CorpusOptions, say: Callable[[str], None] = print, separate: Separate | None = None
) -> dict[str, Any]:
    """Build what is missing of a corpus. Returns the manifest.

    Raises CorpusError if the folder holds anything else or was started with other sources, or if the disk is too small.
    """
    _check_folder(options.folder)
    before = read_manifest(options.folder)
    sources = make_sources(options.stems, options.packages, say)
    _check_roles(sources)
    say(f"{len(sources)} sources; computing their checksums")
    entries = manifest.describe(sources, [*options.stems, cache_dir()], manifest.Hashes())
    if before is not None:
        changed = manifest.differences(before["sources"], entries)
        changed = changed or ("" if before["seed"] == options.seed else f"seed {before['seed']}")
        if changed:
            raise CorpusError(
                f"{options.folder} was started with other sources ({changed}): use the same ones, or another folder"
            )
    missing = _missing_bytes(options, sources)
    options.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.folder).free
    if missing > free:
        raise CorpusError(
            f"{options.folder} needs {missing / 1e9:.1f} GB more, but only {free / 1e9:.1f} GB are free: "
            f"use fewer --hours than {options.hours:g}, or a folder on another disk"
        )
    about = {
        "version": manifest.VERSION, "made_by": _MADE_BY, "seed": options.seed, "item_seconds": round(ITEM_S, 3),
        "pool": pool_hours(options.folder), "sources": entries,
    }  # fmt: skip
    manifest.write_json(options.folder / manifest.NAME, about)
    if missing:
        say(f"writing {missing / 1e9:.1f} GB to {options.folder}")
        _build_pool(options, sources, separate or Spleeter().separate_all, say)
        _build_four_stems(options, sources, say)
        _build_faulty(options, sources, say)
    about["pool"] = pool_hours(options.folder)
    manifest.write_json(options.folder / manifest.NAME, about)
    return about


def _build_pool(options: CorpusOptions, sources: list[Source], separate: Separate, say: Callable[[str], None]) -> None:
    length, per_shard = options.item_samples, options.per_shard
    build_songs(options.folder, "valid", sources, separate, length=length, per_shard=per_shard, say=say)
    for split, items in options.items.items():
        mine = [source for source in sources if source.split == split]
        if {source.role for source in mine} != set(ROLES):
            say(f"{split}: no sources, skipped")
            continue
        many = count_training_songs(mine) >= _MANY_SONGS
        config = RemixConfig(vary=split != "test", singers=_SINGERS_OF_MANY_SONGS if many else RemixConfig.singers)
        shards = -(-items // per_shard) - len(_shards(options.folder, split, four_stems=False))
        build_remixes(
            options.folder, split, mine, separate, items=items, seed=options.seed, length=length, per_shard=per_shard,
            config=config, say=_Progress(shards, say, split),
        )  # fmt: skip


def _build_four_stems(options: CorpusOptions, sources: list[Source], say: Callable[[str], None]) -> None:
    """Add the second separator's shards, if there are sources for every stem. Trains it first if it has no weights."""
    missing = {split: n for split, n in _four_stems_missing(options, sources).items() if n}
    if not missing:
        return
    if not weights_path().exists():
        say(f"training the second separator for {FOUR_STEMS_MINUTES:g} minutes (cached)")
        train_four_stems(sources, weights_path(), FOUR_STEMS_MINUTES, say=say)
    separator = FourStems()
    for split in missing:
        library = StemLibrary.of([source for source in sources if source.split == split])
        shards, per_shard = options.four_stems_shards(split)
        for number in range(_FIRST_FOUR_STEMS_SHARD, _FIRST_FOUR_STEMS_SHARD + shards):
            if (options.folder / split / f"shard_{number:03d}.npy").exists():
                continue
            stem = STEMS[(number - _FIRST_FOUR_STEMS_SHARD) % len(STEMS)]
            make_shard(
                options.folder, split, number, range(number * per_shard, (number + 1) * per_shard),
                partial(
                    separated_tracks, StemRemixer(library, stem, options.item_samples).draw,
                    partial(separator.separate_all, stem=stem),
                ),
                seed=options.seed, separator="four-stems", say=say,
            )  # fmt: skip


def _build_faulty(options: CorpusOptions, sources: list[Source], say: Callable[[str], None]) -> None:
    for split, missing in _faulty_missing(options, sources).items():
        if missing:
            build_faulty(
                options.folder, split, sources, range(options.faulty_shards(split)), seed=options.seed,
                items=options.per_shard, length=options.item_samples, say=_Progress(missing, say, split),
            )  # fmt: skip


def _faulty_missing(options: CorpusOptions, sources: list[Source]) -> dict[str, int]:
    """Shards of faulty stems that are still to be made, by split; none for a split without vocals or bands."""
    return {
        split: max(0, options.faulty_shards(split) - len(faulty_shards(options.folder, split)))
        for split in SPLITS
        if {source.role for source in sources if source.split == split} == set(ROLES)
    }


def _four_stems_missing(options: CorpusOptions, sources: list[Source]) -> dict[str, int]:
    """Items the second separator still has to make, by split; none for a split that lacks sources for some stem."""
    found = {}
    for split in options.items:
        possible = has_every_stem([source for source in sources if source.split == split])
        shards, per_shard = options.four_stems_shards(split)
        made = len(_shards(options.folder, split, four_stems=True))
        found[split] = max(shards - made, 0) * per_shard * possible
    if not has_every_stem([source for source in sources if source.split == "train"]):
        return dict.fromkeys(found, 0)  # nothing to train the separator with
    return found


def _shards(folder: Path, split: str, *, four_stems: bool) -> list[Path]:
    """The finished shards of a split that the second separator, or Spleeter, made."""
    paths = shard_paths(folder / split)
    return [path for path in paths if (int(path.stem[6:]) >= _FIRST_FOUR_STEMS_SHARD) == four_stems]


class _Progress:
    """Passes on the line about each shard, with the split and an estimate of the time left."""

    def __init__(self, shards: int, say: Callable[[str], None], split: str) -> None:
        self.left, self.say, self.split = shards, say, split
        self.began, self.done = time.monotonic(), 0

    def __call__(self, line: str) -> None:
        self.done += 1
        self.left -= 1
        left_min = (time.monotonic() - self.began) / self.done * self.left / 60
        more = f"; {self.left} more, about {left_min:.0f} min" if self.left > 0 else ""
        self.say(f"{self.split} {line}{more}")


def _check_folder(folder: Path) -> None:
    """Raises CorpusError if the folder holds anything but a corpus, finished or not."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file: use a folder")
    names = [path.name for path in sorted(folder.iterdir()) if path.name != _MAKE_STAMP and path.suffix != ".part"]
    if not names:
        return
    foreign = [name for name in names if name not in (*SPLITS, manifest.NAME)]
    if foreign or read_manifest(folder) is None:
        what = foreign[0] if foreign else f"a pool without {manifest.NAME}"
        raise CorpusError(f"{folder} holds something else ({what}): use a new folder, or one started by {_MADE_BY}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a corpus, or None if there is none. Raises CorpusError if the file is not a corpus manifest."""
    path = folder / manifest.NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_by"] == _MADE_BY and found["version"] == manifest.VERSION and isinstance(found["sources"], list):
            return dict(found)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise CorpusError(f"{path} is not a manifest of this version of {_MADE_BY}: use another folder")


def _check_roles(sources: list[Source]) -> None:
    train = [source for source in sources if source.split == "train"]
    for role in ROLES:
        if not any(source.role == role for source in train):
            raise CorpusError(f"no {role} to train on among {len(sources)} sources: add songs with --stems")


def _missing_bytes(options: CorpusOptions, sources: list[Source]) -> int:
    """Size of the shards that are still to be made."""
    items = 0
    for split, wanted in options.items.items():
        if {source.role for source in sources if source.split == split} == set(ROLES):
            shards = -(-wanted // options.per_shard)
            made = sum((options.folder / split / f"shard_{n:03d}.npy").exists() for n in range(shards))
            items += max(wanted - made * options.per_shard, 0)
    valid = [source for source in sources if source.split == "valid" and source.kind == "song"]
    groups = set.intersection(*({source.group for source in valid if source.role == role} for role in ROLES))
    wanted = sum(
        max(source.length_samples for source in valid if source.group == group) // options.item_samples
        for group in groups
    )
    made = sum(len(open_shard(path)[0]) for path in shard_paths(options.folder / "valid"))
    items += max(wanted - made, 0)
    items += sum(_four_stems_missing(options, sources).values())
    tracks = items * len(TRACKS)
    tracks += sum(_faulty_missing(options, sources).values()) * options.per_shard * (2 + VERSIONS)
    return tracks * options.item_samples * 2 * 2  # two channels, two bytes


def pool_hours(folder: Path) -> dict[str, float]:
    """Hours of items in each split of a corpus."""
    found = {}
    for split in SPLITS:
        samples = sum(tracks.shape[0] * tracks.shape[-1] for tracks, _ in map(open_shard, shard_paths(folder / split)))
        if samples:
            found[split] = round(samples / SAMPLE_RATE / 3600, 3)
    return found


def render_pool(about: dict[str, Any], folder: Path) -> str:
    """One line with the hours of each split."""
    hours = ", ".join(f"{split} {value:.2f} h" for split, value in about["pool"].items())
    return f"{folder}: {hours or 'empty'}; {len(about['sources'])} sources in {folder / manifest.NAME}"
