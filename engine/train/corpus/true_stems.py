"""A pool of true stems of one or more instruments, for an adapter of these instruments alone.

    python -m stemprover.engine.train.corpus.true_stems data/drums --stem drums --stems DIR --rendered-songs

uses the stems of that name in a folder of songs (layouts.py) and, with `--rendered-songs`, those of songs rendered from
MIDI (rendered_songs.py), which are made first if they are not in the cache. The pool has the form of pool.py: x_v is
the stem, x_a the rest of the mix. There is no separator, so y_v and y_a are the true stems too. Train on it with
simulated faults only (`simulated = 1.0`, `upon_separated = 0.0`, `average = 0.0`, `roles = "v"` in `[crop]`). To cut
cases from it, and true stems to fit a trust curve:

    python -m stemprover.engine.train.cases data/drums cases/drums --split valid valid-other --separated 8 \\
        --simulated 8 --roles v

With `--held-out` the pool contains only songs that are never trained on, for cases of several instruments.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import StemProverError
from ...stem_names import MIX, STEMS
from .layouts import Song, find_songs
from .packages import package_sources
from .pool import ITEM_SAMPLES, ITEMS_PER_SHARD, TRACKS, quantise, shard_paths, write_shard
from .rendered_songs import list_rendered_songs, render_songs
from .sources import SAMPLE_RATE, CorpusError, audio_length, default_stems_folder, read_stereo

MIN_RMS = 0.01  # items whose stem is quieter are skipped
ITEM_S = ITEM_SAMPLES / SAMPLE_RATE
_GAIN = 0.5  # headroom for the sum of stem and rest


def excerpts(song: Song, stem: str) -> Iterator[np.ndarray]:
    """Consecutive excerpts (2, 2, ITEM_SAMPLES) of a stem and the rest of its mix, except where the stem is quiet.

    A stem's files are summed. A song without other stems has no excerpts.
    """
    length = max(audio_length(path) for _, path in song.stems)
    pair = np.zeros((2, 2, length), np.float32)
    for name, path in song.stems:
        audio = read_stereo(path)
        pair[0 if name == stem else 1, :, : audio.shape[-1]] += audio
    if not any(name != stem for name, _ in song.stems):
        return
    pair *= np.float32(_GAIN / max(float(np.abs(pair).max()), 1.0))
    for start in range(0, length - ITEM_SAMPLES + 1, ITEM_SAMPLES):
        item = pair[..., start : start + ITEM_SAMPLES]
        if np.sqrt(np.mean(item[0] ** 2)) > MIN_RMS:
            yield item


def build_pool(folder: Path, songs: Iterable[Song], stems: Sequence[str]) -> int:
    """Write shards of these stems to the songs' splits. Returns the number of items.

    Raises CorpusError if the folder already has shards, or if no item has such a stem.
    """
    waiting: dict[str, list[tuple[np.ndarray, dict[str, str]]]] = {}
    written: dict[str, int] = {}
    items = 0

    def write(split: str) -> None:
        tracks, infos = zip(*waiting.pop(split), strict=True)
        write_shard(folder / split, written.get(split, 0), list(tracks), list(infos))
        written[split] = written.get(split, 0) + 1

    for song in songs:
        if shard_paths(folder / song.split) and song.split not in written:
            raise CorpusError(f"{folder / song.split} already has shards: use another folder, or delete it")
        for stem in dict.fromkeys(name for name, _ in song.stems if name in stems):
            for item in excerpts(song, stem):
                track = np.concatenate([quantise(item)] * (len(TRACKS) // 2))
                waiting.setdefault(song.split, []).append((track, {"song": song.name, "of": stem}))
                items += 1
                if len(waiting[song.split]) == ITEMS_PER_SHARD:
                    write(song.split)
    for split in list(waiting):
        write(split)
    if not items:
        raise CorpusError(f"no song has {ITEM_S:.1f} s of {' or '.join(stems)} next to another stem")
    return items


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.corpus.true_stems", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="a new folder for the pool")
    names = sorted(set(STEMS) - {MIX})
    parser.add_argument(
        "--stem", required=True, nargs="+", choices=names, metavar="NAME", help=f"one or more of {', '.join(names)}"
    )
    parser.add_argument("--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.wav")
    parser.add_argument("--rendered-songs", action="store_true", help="add songs rendered from MIDI")
    parser.add_argument("--held-out", action="store_true", help="leave out all songs of the training split")
    options = parser.parse_args()
    part = options.out.with_name(f"{options.out.name}.{os.getpid()}.part")
    try:
        if options.out.exists():
            raise CorpusError(f"{options.out} already exists: use another folder, or delete it")
        if options.stems is None and not options.rendered_songs:
            raise CorpusError("nothing to build from: pass a folder with --stems, or use --rendered-songs")
        songs = [*find_songs(options.stems).songs] if options.stems is not None else []
        if options.rendered_songs:
            voices = [source for source in package_sources() if source.kind == "voice"]
            render_songs(voices, held_out_only=options.held_out)
            songs += list_rendered_songs()
        songs = [song for song in songs if not (options.held_out and song.split == "train")]
        items = build_pool(part, songs, options.stem)
        part.rename(options.out)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{options.out}: {items} items of {ITEM_S:.1f} s")


if __name__ == "__main__":
    main()
