"""`stemprover corpus build`: from packages and folders of stems to a pool of training material, with a manifest.

Each step leaves what is finished and begins with what is missing, so that the same command goes on after an
interruption: packages, takes and singing lie in the cache, shards and manifest in the corpus's folder.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import manifest
from .four_stems import FIRST_SHARD, STEMS, FourStems, build_four_stems, can_draw, train_four_stems, weights_path
from .layouts import find_songs
from .pool import ITEM_SAMPLES, ITEMS_PER_SHARD, TRACKS, Separate, build_remixes, build_songs, open_shard, shard_paths
from .remix import RemixConfig
from .rendered_songs import PACKAGES as TAKE_PACKAGES
from .rendered_songs import make_takes, take_sources
from .separators import Spleeter
from .singing import SINGERS_PER_SONG, make_singing, singing_sources
from .sources import PACKAGES, ROLES, SAMPLE_RATE, SPLITS, CorpusError, Source, cache_dir, is_fetched, package_sources

HELD_OUT_ITEMS = 40
#: Of the items of each split of remixes so many, in addition, are separated by the second separator; and how long that
#: is trained, where it was not.
FOUR_STEMS_SHARE, FOUR_STEMS_MINUTES = 0.25, 15.0
ITEM_S = ITEM_SAMPLES / SAMPLE_RATE
#: Singers made of songs' singers in all, and from how many songs on real singers are the most of the vocals.
_MADE_SINGERS, _MANY_SONGS = 40, 20
_MANY_SINGERS = (0.20, 0.60, 0.20)
_STAMP = ".ready"  # make's
_MADE_BY = "stemprover corpus build"


@dataclass(frozen=True)
class CorpusOptions:
    """What to build. hours: of training items by Spleeter. stems: folders of true stems. items_held_out: of each such
    split. four_stems: how much more by the second separator, as a share."""

    folder: Path
    stems: tuple[Path, ...] = ()
    hours: float = 8.0
    packages: bool = True
    seed: int = 1
    items_held_out: int = HELD_OUT_ITEMS
    four_stems: float = FOUR_STEMS_SHARE
    item_samples: int = ITEM_SAMPLES
    per_shard: int = ITEMS_PER_SHARD

    def __post_init__(self) -> None:
        if not 0 < self.hours < math.inf:
            raise CorpusError(f"hours={self.hours:g} is no length: give a number above 0")
        if not 0 <= self.four_stems <= 1:
            raise CorpusError(f"four_stems={self.four_stems:g} is a share: give a number in 0 to 1")
        if not self.packages and not self.stems:
            raise CorpusError("nothing to build from: give a folder with --stems, or leave out --no-packages")

    @property
    def items(self) -> dict[str, int]:
        """Items of each split of remixes; of train whole shards, so that more hours later add to them."""
        train = math.ceil(self.hours * 3600 * SAMPLE_RATE / self.item_samples / self.per_shard - 1e-6) * self.per_shard
        return {"valid-other": self.items_held_out, "test": self.items_held_out, "train": train}

    def four_stems_shards(self, split: str) -> tuple[int, int]:
        """Shards of the second separator, each of its stems in turn, and items in each; as many held-out items as of
        Spleeter."""
        if split != "train":
            return (len(STEMS), -(-self.items[split] // len(STEMS))) if self.four_stems else (0, 1)
        turns = math.ceil(self.four_stems * self.items[split] / (self.per_shard * len(STEMS)) - 1e-6)
        return turns * len(STEMS), self.per_shard


def stem_sources(folders: Sequence[Path], say: Callable[[str], None]) -> list[Source]:
    """The sources of folders of stems; says what is left out. Raises CorpusError where two songs have one name."""
    found: list[Source] = []
    names: dict[str, Path] = {}
    for folder in folders:
        stems = find_songs(folder)
        line = stems.render_left_out()
        if line:
            say(line)
        for song in stems.songs:
            if song.name in names:
                raise CorpusError(
                    f"two songs are called {song.name!r}, in {names[song.name]} and {folder}: rename one of the folders"
                )
            names[song.name] = folder
            found += song.sources()
    return found


def singers_per_song(sources: list[Source]) -> int:
    """How many singers to make of a training song's: fewer the more songs there are, none where these suffice."""
    songs = sum(_is_training_song(source) for source in sources)
    return min(SINGERS_PER_SONG, _MADE_SINGERS // songs) if songs else 0


def _is_training_song(source: Source) -> bool:
    return source.kind == "song" and source.role == "vocals" and source.split == "train"


def list_sources(stems: Sequence[Path], packages: bool, say: Callable[[str], None]) -> list[Source]:
    """All sources that are there now; nothing is fetched, played or sung."""
    sources = stem_sources(stems, say)
    missing = [package for package in (*PACKAGES, *TAKE_PACKAGES) if not is_fetched(package)]
    if packages and missing:
        say(f"Not fetched yet: {', '.join(dict.fromkeys(missing))}")
    if packages:
        sources += package_sources(only_cached=True)
    train = [source for source in sources if source.split == "train"]
    return [
        *sources,
        *(take_sources() if packages else []),
        *singing_sources(train, singers_per_song(sources)),
    ]


def make_sources(options: CorpusOptions, say: Callable[[str], None]) -> list[Source]:
    """All sources, after what is missing of them was fetched, played and sung."""
    sources = stem_sources(options.stems, say)
    if options.packages:
        say("fetching packages, playing MIDI songs (kept; the first time takes half an hour or so on two cores)")
        sources += package_sources()
        make_takes(sources, say)
    train = [source for source in sources if source.split == "train"]
    per_song = singers_per_song(sources)
    for source in train:
        make_singing(source, say, per_song)
    takes = take_sources() if options.packages else []
    return [*sources, *takes, *singing_sources(train, per_song)]


def build_corpus(
    options: CorpusOptions, say: Callable[[str], None] = print, separate: Separate | None = None
) -> dict[str, Any]:
    """Build a corpus, or what is missing of it; returns the manifest.

    Raises CorpusError where the folder holds something else, was begun with other sources, or the disk is too small.
    """
    _check_folder(options.folder)
    before = read_manifest(options.folder)
    sources = make_sources(options, say)
    _check_roles(sources)
    say(f"{len(sources)} sources; their checksums for the manifest")
    entries = manifest.describe(sources, [*options.stems, cache_dir()], manifest.Hashes())
    if before is not None:
        found = manifest.differences(before["sources"], entries)
        found = found or ("" if before["seed"] == options.seed else f"seed {before['seed']}")
        if found:
            raise CorpusError(
                f"{options.folder} was begun with other sources ({found}): give what it was begun with, "
                "or another folder"
            )
    missing = _missing_bytes(options, sources)
    options.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.folder).free
    if missing > free:
        raise CorpusError(
            f"{options.folder} needs {missing / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free: "
            f"give fewer --hours than {options.hours:g}, or a folder on another disk"
        )
    about = {
        "version": manifest.VERSION, "made_by": _MADE_BY, "seed": options.seed, "item_seconds": round(ITEM_S, 3),
        "pool": pool_hours(options.folder), "sources": entries,
    }  # fmt: skip
    manifest.write_json(options.folder / manifest.NAME, about)
    if missing:
        say(f"{missing / 1e9:.1f} GB of before and after into {options.folder}")
        _build_pool(options, sources, separate or Spleeter().separate_all, say)
        _build_four_stems(options, sources, say)
    about["pool"] = pool_hours(options.folder)
    manifest.write_json(options.folder / manifest.NAME, about)
    return about


def _build_pool(options: CorpusOptions, sources: list[Source], separate: Separate, say: Callable[[str], None]) -> None:
    length, per_shard = options.item_samples, options.per_shard
    build_songs(options.folder, "valid", sources, separate, length=length, per_shard=per_shard, say=say)
    for split, items in options.items.items():
        mine = [source for source in sources if source.split == split]
        if {source.role for source in mine} != set(ROLES):
            say(f"{split}: no material, left out")
            continue
        many = sum(map(_is_training_song, mine)) >= _MANY_SONGS
        config = RemixConfig(vary=split != "test", singers=_MANY_SINGERS if many else RemixConfig.singers)
        own = [path for path in shard_paths(options.folder / split) if int(path.stem[6:]) < FIRST_SHARD]
        clock = _Clock(-(-items // per_shard) - len(own), say, split)
        build_remixes(
            options.folder, split, mine, separate, items=items, seed=options.seed, length=length, per_shard=per_shard,
            config=config, say=clock,
        )  # fmt: skip


def _build_four_stems(options: CorpusOptions, sources: list[Source], say: Callable[[str], None]) -> None:
    """What the second separator makes of stems that are apart, where there are such; trains it first if need be."""
    missing = {split: n for split, n in _four_stems_missing(options, sources).items() if n}
    if not missing:
        return
    if not weights_path().exists():
        say(f"training the second separator, {FOUR_STEMS_MINUTES:g} minutes (kept)")
        train_four_stems(sources, weights_path(), FOUR_STEMS_MINUTES, say=say)
    separator = FourStems()
    for split in missing:
        shards, per_shard = options.four_stems_shards(split)
        build_four_stems(
            options.folder, split, sources, separator, items=shards * per_shard, seed=options.seed,
            length=options.item_samples, per_shard=per_shard, say=say,
        )  # fmt: skip


def _four_stems_missing(options: CorpusOptions, sources: list[Source]) -> dict[str, int]:
    """Items of the second separator that are still to be made, by split; none where some stem is nowhere apart."""
    found = {}
    for split in options.items:
        there = can_draw([source for source in sources if source.split == split])
        shards, per_shard = options.four_stems_shards(split)
        made = [path for path in shard_paths(options.folder / split) if int(path.stem[6:]) >= FIRST_SHARD]
        found[split] = max(shards - len(made), 0) * per_shard * there
    if not can_draw([source for source in sources if source.split == "train"]):
        return dict.fromkeys(found, 0)  # nothing to train the separator with
    return found


class _Clock:
    """Passes on what is said of each shard, with how many there are still to make and for how long."""

    def __init__(self, shards: int, say: Callable[[str], None], split: str) -> None:
        self.left, self.say, self.split = shards, say, split
        self.began, self.done = time.monotonic(), 0

    def __call__(self, line: str) -> None:
        self.done += 1
        self.left -= 1
        rest_min = (time.monotonic() - self.began) / self.done * self.left / 60
        more = f"; {self.left} more, some {rest_min:.0f} min" if self.left > 0 else ""
        self.say(f"{self.split} {line}{more}")


def _check_folder(folder: Path) -> None:
    """Raises CorpusError where a folder holds anything but a corpus, begun or finished."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file: give a folder")
    there = [path for path in sorted(folder.iterdir()) if path.name != _STAMP and path.suffix != ".part"]
    if not there:
        return
    strange = [path.name for path in there if path.name not in (*SPLITS, manifest.NAME)]
    if strange or read_manifest(folder) is None:
        what = strange[0] if strange else f"a pool without {manifest.NAME}"
        raise CorpusError(f"{folder} holds something else ({what}): give a new folder, or one that {_MADE_BY} began")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a corpus; None where there is none. Raises CorpusError for a file that is something else's."""
    path = folder / manifest.NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_by"] == _MADE_BY and found["version"] == manifest.VERSION and isinstance(found["sources"], list):
            return dict(found)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise CorpusError(f"{path} is not a manifest of this version of {_MADE_BY}: give another folder")


def _check_roles(sources: list[Source]) -> None:
    train = [source for source in sources if source.split == "train"]
    for role in ROLES:
        if not any(source.role == role for source in train):
            raise CorpusError(f"there are no {role} to train on among {len(sources)} sources: add songs with --stems")


def _missing_bytes(options: CorpusOptions, sources: list[Source]) -> int:
    """How large what is missing of the pool will be."""
    items = 0
    for split, wanted in options.items.items():
        if {source.role for source in sources if source.split == split} == set(ROLES):
            shards = -(-wanted // options.per_shard)
            there = sum((options.folder / split / f"shard_{n:03d}.npy").exists() for n in range(shards))
            items += max(wanted - there * options.per_shard, 0)
    held = [source for source in sources if source.split == "valid" and source.kind == "song"]
    groups = set.intersection(*({source.group for source in held if source.role == role} for role in ROLES))
    longest = {
        group: max(source.length_samples for source in held if source.group == group) // options.item_samples
        for group in groups
    }
    there = sum(len(open_shard(path)[0]) for path in shard_paths(options.folder / "valid"))
    items += max(sum(longest.values()) - there, 0)
    items += sum(_four_stems_missing(options, sources).values())
    return items * options.item_samples * len(TRACKS) * 2 * 2


def pool_hours(folder: Path) -> dict[str, float]:
    """Hours of items in each split of a corpus's folder."""
    found = {}
    for split in SPLITS:
        samples = sum(tracks.shape[0] * tracks.shape[-1] for tracks, _ in map(open_shard, shard_paths(folder / split)))
        if samples:
            found[split] = round(samples / SAMPLE_RATE / 3600, 3)
    return found


def render_pool(about: dict[str, Any], folder: Path) -> str:
    """One line for people: the hours of each split."""
    hours = ", ".join(f"{split} {value:.2f} h" for split, value in about["pool"].items())
    return f"{folder}: {hours or 'empty'}; {len(about['sources'])} sources in {folder / manifest.NAME}"
