"""A pool of before/after material on disk: true stems, and what the real Spleeter makes of their mixtures.

    python -m stemprover.engine.train.corpus.pool OUT --items 600 --seed 1 --split train

writes OUT/<split>/shard_000.npy, ... Each is int16 of shape (items, 6, 2, T), full scale 32767, tracks in the order of
TRACKS, T = ITEM_SAMPLES at 44.1 kHz; `np.load(path, mmap_mode="r")` opens one without reading it. The mixture is
x_v + x_a, exactly: the separator has heard the sum of the stored (rounded) stems. shard_000.json tells what each item
was made of.

Splits "train", "valid-other" and "test" hold random remixes (remix.py), each item separated by itself. Split "valid"
holds whole songs in their own pairing, unvaried, separated in one go and cut into consecutive items; --items is not
used there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import TrainingError
from .layouts import song_sources
from .remix import Remix, RemixConfig, Remixer, whole_song
from .separators import ONE_PATCH_SAMPLES, SAMPLE_RATE, Spleeter
from .singing import singing_sources
from .sources import ROLES, SPLITS, CorpusError, Source, default_stems_folder, package_sources

TRACKS = ("x_v", "x_a", "y_v_zeros", "y_a_zeros", "y_v_average", "y_a_average")
FULL_SCALE = 32767.0
ITEM_SAMPLES = ONE_PATCH_SAMPLES
ITEMS_PER_SHARD = 25
#: Mixture (2, T) to {"zeros" | "average": {"vocals" | "accompaniment": (2, T)}}, as Spleeter.separate_all.
Separate = Callable[[np.ndarray], dict[str, dict[str, np.ndarray]]]


def shard_paths(folder: Path) -> list[Path]:
    """The finished shards of one split's folder, in order."""
    return sorted(folder.glob("shard_[0-9]*.npy"))


def shards_of(pool: Path, split: str) -> list[Path]:
    """`shard_paths` of a split. Raises TrainingError where there are none."""
    paths = shard_paths(pool / split)
    if not paths:
        raise TrainingError(f"no shards in {pool / split}: build the pool first (stemprover corpus build {pool})")
    return paths


def open_shard(path: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A shard as a read-only memory map (items, 6, 2, T) int16, and one description per item."""
    return np.load(path, mmap_mode="r"), json.loads(path.with_suffix(".json").read_text())["items"]


def sdr_db(truth: np.ndarray, estimate: np.ndarray) -> float | None:
    """Signal-to-distortion ratio, 10 log10(|x|^2 / |x - y|^2), over all channels; None where the truth is silent."""
    power = float(np.sum(truth.astype(np.float64) ** 2))
    if power == 0.0:
        return None
    return round(10 * float(np.log10(power / (float(np.sum((truth.astype(np.float64) - estimate) ** 2)) + 1e-12))), 3)


def quantise(audio: np.ndarray) -> np.ndarray:
    """Float of full scale 1 to int16 of full scale 32767."""
    return np.clip(np.rint(audio * FULL_SCALE), -FULL_SCALE, FULL_SCALE).astype(np.int16)


def make_tracks(remix: Remix, separate: Separate) -> tuple[np.ndarray, dict[str, Any]]:
    """The six tracks (6, 2, T) int16 of a remix, and its description with the separator's SDRs."""
    x_v, x_a = remix.vocals, remix.band
    for _ in range(2):
        stems = [quantise(x_v), quantise(x_a)]
        mix = (stems[0].astype(np.float32) + stems[1]) / np.float32(FULL_SCALE)
        separated = separate(mix)
        made = [
            separated[extension][stem] for extension in ("zeros", "average") for stem in ("vocals", "accompaniment")
        ]
        peak = max(float(np.abs(y).max()) for y in made)
        if peak <= 0.999:
            break
        x_v, x_a = x_v * (0.95 / peak), x_a * (0.95 / peak)  # a mask can raise a peak: make room and do it again
    tracks = np.stack([*stems, *(quantise(y) for y in made)])
    info = dict(remix.info)
    for track, truth in ((2, 0), (3, 1), (4, 0), (5, 1)):
        info[f"sdr_{TRACKS[track]}"] = sdr_db(tracks[truth] / FULL_SCALE, tracks[track] / FULL_SCALE)
    return tracks, info


def write_shard(folder: Path, number: int, tracks: list[np.ndarray], infos: list[dict[str, Any]], **about: Any) -> Path:
    """Write shard_<number>.json, then shard_<number>.npy; under temporary names, so a shard that is there is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"shard_{number:03d}.npy"
    text = {
        "version": 1,
        "sample_rate": SAMPLE_RATE,
        "full_scale": FULL_SCALE,
        "tracks": TRACKS,
        **about,
        "items": infos,
    }
    part = folder / f"shard_{number:03d}.{os.getpid()}.part"
    part.write_text(json.dumps(text, indent=1))
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
    """Make the shards of random remixes that are not there yet; returns the paths of those that it made.

    An item depends on (seed, split, its number) and on the sources only, so shards can be made in any order, by several
    processes with different `shards`, and after an interruption.
    """
    remixer = Remixer([source for source in sources if source.split == split], length, config)
    made = []
    count = -(-items // per_shard)
    for number in range(count) if shards is None else shards:
        if number < count and not (out / split / f"shard_{number:03d}.npy").exists():
            drawn = range(number * per_shard, min((number + 1) * per_shard, items))
            made.append(fill_shard(out, split, number, drawn, remixer.draw, separate, seed=seed, say=say))
    return made


def fill_shard(
    out: Path, split: str, number: int, items: range, draw: Callable[[np.random.Generator], Remix], separate: Separate,
    *, seed: int, separator: str = "spleeter-2stems", say: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Make one shard of remixes, separated; an item depends on (seed, split, its number) and on what draws it."""
    began = time.perf_counter()
    tracks, infos = [], []
    for item in items:
        track, info = make_tracks(draw(np.random.default_rng([seed, SPLITS.index(split), item])), separate)
        tracks.append(track)
        infos.append({"item": item, **info})
    path = write_shard(out / split, number, tracks, infos, split=split, seed=seed, separator=separator)
    took = time.perf_counter() - began
    pace = sum(track.shape[-1] for track in tracks) / SAMPLE_RATE / took
    say(f"{path.name}: {len(tracks)} items, {took:.0f} s, {pace:.1f} x real time")
    return path


def build_songs(
    out: Path, split: str, sources: list[Source], separate: Separate, *,
    length: int = ITEM_SAMPLES, per_shard: int = ITEMS_PER_SHARD, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Whole songs of a split, each separated in one go, cut into consecutive items; a shorter rest is left out."""
    mine = [source for source in sources if source.split == split and source.kind == "song"]
    groups = sorted(set.intersection(*({s.group for s in mine if s.role == role} for role in ROLES)))
    made, number = [], 0
    for group in groups:
        vocals, band = (next(s for s in mine if s.group == group and s.role == role) for role in ROLES)
        pieces = max(vocals.length_samples, band.length_samples) // length
        first, number = number, number + -(-pieces // per_shard)
        if all((out / split / f"shard_{n:03d}.npy").exists() for n in range(first, number)):
            continue
        tracks, info = make_tracks(whole_song(vocals, band), separate)
        for n in range(first, number):
            chosen = range((n - first) * per_shard, min((n - first + 1) * per_shard, pieces))
            cut = [tracks[..., piece * length : (piece + 1) * length] for piece in chosen]
            infos = []
            for piece, item in zip(chosen, cut, strict=True):
                sdrs = {
                    f"sdr_{TRACKS[t]}": sdr_db(item[x] / FULL_SCALE, item[t] / FULL_SCALE)
                    for t, x in ((2, 0), (3, 1), (4, 0), (5, 1))
                }
                infos.append({"item": piece, **info, "start": piece * length, **sdrs})
            made.append(write_shard(out / split, n, cut, infos, split=split, separator="spleeter-2stems"))
            say(f"{made[-1].name}: {len(cut)} items of {group}")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.corpus.pool", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="folder of the pool")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--items", type=int, default=600, help="items in the whole split (11.8 s each)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--shards", metavar="FIRST:LAST", help="make only shards FIRST to LAST-1, to share work between processes"
    )
    parser.add_argument(
        "--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.{ogg,wav,flac}"
    )
    parser.add_argument("--no-packages", action="store_true", help="use the stems folder only, no Debian packages")
    parser.add_argument("--no-midi", action="store_true", help="do not render MIDI music")
    parser.add_argument("--no-singing", action="store_true", help="take no made singers (singing.py) into train")
    parser.add_argument("--threads", type=int, default=1, help="threads of the separator")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        first, last = (int(part) for part in options.shards.split(":")) if options.shards else (0, sys.maxsize)
    except ValueError:
        parser.error(f"--shards {options.shards}: give two numbers, as 0:12")
    count = -(-options.items // ITEMS_PER_SHARD)
    try:
        sources = song_sources(options.stems) if options.stems is not None else []
        if not options.no_packages and options.split != "valid":
            sources += package_sources(midi=not options.no_midi)
        if options.split == "train" and not options.no_singing:
            sung = singing_sources(sources)
            print(
                f"{len(sung)} tracks of made singers (python -m stemprover.engine.train.corpus.singing makes them)", flush=True
            )
            sources += sung
        separator = Spleeter()

        def say(line: str) -> None:
            print(line, flush=True)

        if options.split == "valid":
            build_songs(options.out, "valid", sources, separator.separate_all, say=say)
        else:
            config = RemixConfig(vary=options.split != "test")
            build_remixes(
                options.out, options.split, sources, separator.separate_all, items=options.items, seed=options.seed,
                shards=range(first, min(last, count)), config=config, say=say,
            )  # fmt: skip
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
