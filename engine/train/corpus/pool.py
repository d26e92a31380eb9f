"""The pool of training material on disk: true stems, and the stems that Spleeter separates from their mixes.

    python -m stemprover.engine.train.corpus.pool OUT --items 600 --seed 1 --split train

writes OUT/<split>/shard_000.npy and so on. A shard is int16 of shape (items, 6, 2, T) with full scale 32767, tracks in
the order of TRACKS, and T = ITEM_SAMPLES at 44.1 kHz; `np.load(path, mmap_mode="r")` opens it without reading it. The
mix is exactly x_v + x_a, because the separator is given the sum of the stored (rounded) stems. shard_000.json describes
each item.

The splits "train", "valid-other" and "test" hold random remixes (remix.py), each separated by itself. The split "valid"
holds whole songs, unaltered, each separated in one go and cut into consecutive items; --items does not apply to it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import TrainingError
from .layouts import song_sources
from .packages import package_sources
from .remix import Remix, RemixConfig, Remixer, whole_song
from .singing import singing_sources
from .sources import ROLES, SAMPLE_RATE, SPLITS, CorpusError, Source, default_stems_folder
from .spleeter import EXTENSIONS, ONE_PATCH_SAMPLES, Spleeter

#: x: true, y: separated; v: vocals, a: accompaniment; zeros, average: what Spleeter does above 11 kHz.
TRACKS = ("x_v", "x_a", "y_v_zeros", "y_a_zeros", "y_v_average", "y_a_average")
FULL_SCALE = 32767.0
ITEM_SAMPLES = ONE_PATCH_SAMPLES
ITEMS_PER_SHARD = 25
#: Mix (2, T) to {"zeros" | "average": {"vocals" | "accompaniment": (2, T)}}, as Spleeter.separate_all does.
Separate = Callable[[np.ndarray], dict[str, dict[str, np.ndarray]]]
#: Random generator to the tracks (tracks, 2, T) int16 of an item, and its description.
MakeItem = Callable[[np.random.Generator], tuple[np.ndarray, dict[str, Any]]]


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards in the folder of a split, in order."""
    return sorted(folder.glob("shard_[0-9]*.npy"))


def shards_of(pool: Path, split: str) -> list[Path]:
    """The shards of a pool's split, in order. Raises TrainingError if there are none."""
    paths = shard_paths(pool / split)
    if not paths:
        raise TrainingError(f"no shards in {pool / split}: build the pool first (stemprover corpus build {pool})")
    return paths


def open_shard(path: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A shard as a read-only memory map (items, 6, 2, T) int16, and one description per item."""
    return np.load(path, mmap_mode="r"), json.loads(path.with_suffix(".json").read_text())["items"]


def sdr_db(truth: np.ndarray, estimate: np.ndarray) -> float | None:
    """Signal-to-distortion ratio, 10 log10(|x|^2 / |x - y|^2), over all channels. None if the truth is silent."""
    power = float(np.sum(truth.astype(np.float64) ** 2))
    if power == 0.0:
        return None
    return round(10 * float(np.log10(power / (float(np.sum((truth.astype(np.float64) - estimate) ** 2)) + 1e-12))), 3)


def quantise(audio: np.ndarray) -> np.ndarray:
    """Float with full scale 1 to int16 with full scale 32767."""
    return np.clip(np.rint(audio * FULL_SCALE), -FULL_SCALE, FULL_SCALE).astype(np.int16)


def separation_sdrs(tracks: np.ndarray) -> dict[str, float | None]:
    """The SDR in dB of each separated track, by its key in the shard's description: tracks (6, 2, T) int16."""
    return {
        f"sdr_{TRACKS[separated]}": sdr_db(tracks[true] / FULL_SCALE, tracks[separated] / FULL_SCALE)
        for separated, true in ((2, 0), (3, 1), (4, 0), (5, 1))
    }


def make_tracks(remix: Remix, separate: Separate) -> tuple[np.ndarray, dict[str, Any]]:
    """The six tracks (6, 2, T) int16 of a remix, and its description with the separator's SDRs."""
    x_v, x_a = remix.vocals, remix.band
    for _ in range(2):
        stems = [quantise(x_v), quantise(x_a)]
        mix = (stems[0].astype(np.float32) + stems[1]) / np.float32(FULL_SCALE)
        by_extension = separate(mix)
        separated = [by_extension[extension][role] for extension in EXTENSIONS for role in ROLES]
        peak = max(float(np.abs(y).max()) for y in separated)
        if peak <= 0.999:
            break
        x_v, x_a = x_v * (0.95 / peak), x_a * (0.95 / peak)  # masking raised a peak: turn down and separate again
    tracks = np.stack([*stems, *(quantise(y) for y in separated)])
    return tracks, remix.info | separation_sdrs(tracks)


def write_shard(
    folder: Path, number: int, tracks: list[np.ndarray], infos: list[dict[str, Any]], *, prefix: str = "shard",
    names: tuple[str, ...] = TRACKS, **about: Any,
) -> Path:  # fmt: skip
    """Write <prefix>_<number>.json, then <prefix>_<number>.npy, under temporary names first, so that no shard is
    incomplete.

    about: further entries of the JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix}_{number:03d}.npy"
    description = {
        "version": 1,
        "sample_rate": SAMPLE_RATE,
        "full_scale": FULL_SCALE,
        "tracks": names,
        **about,
        "items": infos,
    }
    part = folder / f"{prefix}_{number:03d}.{os.getpid()}.part"
    part.write_text(json.dumps(description, indent=1))
    part.replace(path.with_suffix(".json"))
    with part.open("wb") as file:
        np.save(file, np.stack(tracks))
    part.replace(path)
    return path


def build_remixes(
    out: Path, split: str, sources: list[Source], separate: Separate, *, items: int, seed: int,
    shards: range | None = None, length: int = ITEM_SAMPLES, per_shard: int = ITEMS_PER_SHARD,
    config: RemixConfig | None = None, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Make the missing shards of random remixes. Returns their paths.

    An item depends only on (seed, split, its number) and the sources, so shards can be made in any order, after an
    interruption, and by several processes with different `shards`.
    """
    remixer = Remixer([source for source in sources if source.split == split], length, config)
    made = []
    count = -(-items // per_shard)
    for number in range(count) if shards is None else shards:
        if number < count and not (out / split / f"shard_{number:03d}.npy").exists():
            numbers = range(number * per_shard, min((number + 1) * per_shard, items))
            make = partial(separated_tracks, remixer.draw, separate)
            made.append(make_shard(out, split, number, numbers, make, seed=seed, say=say))
    return made


def separated_tracks(
    draw: Callable[[np.random.Generator], Remix], separate: Separate, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any]]:
    """`make_tracks` of a random remix."""
    return make_tracks(draw(rng), separate)


def make_shard(
    out: Path, split: str, number: int, items: range, make: MakeItem, *, seed: int, separator: str = "spleeter-2stems",
    prefix: str = "shard", names: tuple[str, ...] = TRACKS, say: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Make and write the items of one shard. An item depends only on (seed, split, its number) and `make`."""
    began = time.perf_counter()
    tracks, infos = [], []
    for item in items:
        track, info = make(np.random.default_rng([seed, SPLITS.index(split), item]))
        tracks.append(track)
        infos.append({"item": item, **info})
    path = write_shard(
        out / split, number, tracks, infos, prefix=prefix, names=names, split=split, seed=seed, separator=separator
    )
    took = time.perf_counter() - began
    pace = sum(track.shape[-1] for track in tracks) / SAMPLE_RATE / took
    say(f"{path.name}: {len(tracks)} items, {took:.0f} s, {pace:.1f} x real time")
    return path


def build_songs(
    out: Path, split: str, sources: list[Source], separate: Separate, *,
    length: int = ITEM_SAMPLES, per_shard: int = ITEMS_PER_SHARD, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Make the missing shards of whole songs, each separated in one go and cut into items. Returns their paths.

    What is left at a song's end is dropped.
    """
    mine = [source for source in sources if source.split == split and source.kind == "song"]
    groups = sorted(set.intersection(*({s.group for s in mine if s.role == role} for role in ROLES)))
    made, last = [], 0
    for group in groups:
        vocals, band = (next(s for s in mine if s.group == group and s.role == role) for role in ROLES)
        count = max(vocals.length_samples, band.length_samples) // length
        first, last = last, last + -(-count // per_shard)
        if all((out / split / f"shard_{n:03d}.npy").exists() for n in range(first, last)):
            continue
        tracks, info = make_tracks(whole_song(vocals, band), separate)
        for n in range(first, last):
            numbers = range((n - first) * per_shard, min((n - first + 1) * per_shard, count))
            items = [tracks[..., number * length : (number + 1) * length] for number in numbers]
            infos = [
                {"item": number, **info, "start": number * length, **separation_sdrs(item)}
                for number, item in zip(numbers, items, strict=True)
            ]
            made.append(write_shard(out / split, n, items, infos, split=split, separator="spleeter-2stems"))
            say(f"{made[-1].name}: {len(items)} items of {group}")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.corpus.pool", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="folder of the pool")
    parser.add_argument("--split", choices=SPLITS, default="train", help="the split to build")
    parser.add_argument("--items", type=int, default=600, help="items in the whole split, 11.8 s each")
    parser.add_argument("--seed", type=int, default=1, help="of the random remixes")
    parser.add_argument(
        "--shards", metavar="FIRST:LAST", help="make only shards FIRST to LAST-1, to split the work between processes"
    )
    parser.add_argument(
        "--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.{ogg,wav,flac}"
    )
    parser.add_argument("--no-packages", action="store_true", help="use only the stems folder, no Debian packages")
    parser.add_argument("--no-midi", action="store_true", help="do not render MIDI music")
    parser.add_argument("--no-singing", action="store_true", help="leave the resynthesised singers out of train")
    parser.add_argument("--threads", type=int, default=1, help="the separator's threads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    say = partial(print, flush=True)
    try:
        first, last = (int(part) for part in options.shards.split(":")) if options.shards else (0, sys.maxsize)
    except ValueError:
        parser.error(f"--shards {options.shards}: use two numbers, such as 0:12")
    count = -(-options.items // ITEMS_PER_SHARD)
    try:
        sources = song_sources(options.stems) if options.stems is not None else []
        if not options.no_packages and options.split != "valid":
            sources += package_sources(midi=not options.no_midi)
        if options.split == "train" and not options.no_singing:
            sung = singing_sources(sources)
            say(f"{len(sung)} tracks of singing (made by python -m stemprover.engine.train.corpus.singing)")
            sources += sung
        separator = Spleeter()
        if options.split == "valid":
            build_songs(options.out, "valid", sources, separator.separate_all, say=say)
        else:
            config = RemixConfig(vary=options.split != "test")
            build_remixes(
                options.out, options.split, sources, separator.separate_all, items=options.items, seed=options.seed,
                shards=range(first, min(last, count)), config=config, say=say,
            )  # fmt: skip
    except CorpusError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
