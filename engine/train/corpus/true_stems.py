"""A pool of an instrument's true stems, or some, each beside the rest of its song, for an adapter of that instrument
alone.

    python -m stemprover.engine.train.corpus.true_stems data/drums --stem drums --stems DIR --takes

takes the stems of that name from a folder of songs (layouts.py) and, with `--takes`, from the songs that are played
from MIDI (takes.py, made first where they are not there yet). The pool has the form of pool.py: x_v is the stem, x_a
the rest of the song. There is no separator in it, so that y_v and y_a are the true stems too; crops have the faults
that are simulated (`simulated = 1.0`, `upon_separated = 0.0`, `average = 0.0`, `roles = "v"` in `[crop]`). Cases of it,
and true stems for a caution:

    python -m stemprover.engine.train.cases data/drums cases/drums --split valid valid-other --separated 8 \\
        --simulated 8 --roles v

With `--held-out` there are only the songs that no weight may see, for cases of several instruments.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import StemProverError
from .layouts import MIX, STEMS, Song, find_songs
from .pool import ITEM_SAMPLES, ITEMS_PER_SHARD, TRACKS, quantise, shard_paths, write_shard
from .rendered_songs import make_takes, take_songs
from .sources import SAMPLE_RATE, CorpusError, audio_length, default_stems_folder, package_sources, read_stereo

QUIETEST = 0.01  # root mean square of an item that counts
ITEM_S = ITEM_SAMPLES / SAMPLE_RATE
_GAIN = 0.5  # so that a sum of stem and rest has room


def excerpts(song: Song, stem: str) -> Iterator[np.ndarray]:
    """The stem and the rest of its song (2, 2, ITEM_SAMPLES), one excerpt after the other, where the stem sounds; a
    stem of several files is their sum. None of a song that has no other stem."""
    length = max(audio_length(path) for _, path in song.stems)
    pair = np.zeros((2, 2, length), np.float32)
    for name, path in song.stems:
        sound = read_stereo(path)
        pair[0 if name == stem else 1, :, : sound.shape[-1]] += sound
    if not any(name != stem for name, _ in song.stems):
        return
    pair *= np.float32(_GAIN / max(float(np.abs(pair).max()), 1.0))
    for start in range(0, length - ITEM_SAMPLES + 1, ITEM_SAMPLES):
        item = pair[..., start : start + ITEM_SAMPLES]
        if np.sqrt(np.mean(item[0] ** 2)) > QUIETEST:
            yield item


def build_pool(folder: Path, songs: Iterable[Song], stems: Sequence[str]) -> int:
    """Shards of these stems by the songs' splits. Returns the number of items. Raises CorpusError where the folder has
    shards already or no such stem sounds."""
    waiting: dict[str, list[tuple[np.ndarray, dict[str, str]]]] = {}
    count: dict[str, int] = {}
    items = 0

    def write(split: str) -> None:
        tracks, infos = zip(*waiting.pop(split), strict=True)
        write_shard(folder / split, count.get(split, 0), list(tracks), list(infos))
        count[split] = count.get(split, 0) + 1

    for song in songs:
        if shard_paths(folder / song.split) and song.split not in count:
            raise CorpusError(f"{folder / song.split} has shards already: give another folder, or delete it")
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
        raise CorpusError(f"no song has {' or '.join(stems)} that sounds for {ITEM_S:.1f} s beside another stem")
    return items


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder of the pool")
    names = sorted(set(STEMS) - {MIX})
    parser.add_argument(
        "--stem", required=True, nargs="+", choices=names, metavar="NAME", help=f"one or more of {', '.join(names)}"
    )
    parser.add_argument("--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.wav")
    parser.add_argument("--takes", action="store_true", help="songs that are played from MIDI as well")
    parser.add_argument("--held-out", action="store_true", help="no songs for training")
    given = parser.parse_args()
    part = given.out.with_name(f"{given.out.name}.{os.getpid()}.part")
    try:
        if given.out.exists():
            raise CorpusError(f"{given.out} is there already: give another folder, or delete it")
        if given.stems is None and not given.takes:
            raise CorpusError("nothing to build from: give a folder with --stems, or --takes")
        songs = [*find_songs(given.stems).songs] if given.stems is not None else []
        if given.takes:
            voices = [source for source in package_sources() if source.kind == "voice"]
            make_takes(voices, held_out_only=given.held_out)
            songs += take_songs()
        songs = [song for song in songs if not (given.held_out and song.split == "train")]
        items = build_pool(part, songs, given.stem)
        part.rename(given.out)
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{given.out}: {items} items of {ITEM_S:.1f} s")


if __name__ == "__main__":
    main()
