"""Makes more singers for training: vocal stems resynthesised with other voices, and spoken words sung to melodies.

    python -m stemprover.engine.train.corpus.singing --stems DIR

fills the folder `singing` in the cache. The pool uses whatever is there. Making the audio needs pyworld (singers.py,
words.py); using it does not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile as sf

from .layouts import song_sources
from .packages import package_sources
from .singers import resynthesise
from .sources import (
    SAMPLE_RATE,
    SPLITS,
    CorpusError,
    Source,
    audio_length,
    cache_dir,
    default_stems_folder,
    read_stereo,
)
from .words import sing_words

SINGERS_PER_SONG = 5
TRACKS_PER_VOICE = 2
TRACK_S = (60.0, 90.0)
#: Voices that are not human.
ROBOTS = frozenset({"Robot"})


def singing_paths(source: Source, per_song: int | None = None) -> list[Path]:
    """The files of the singing made from a source, present or not; none for bands, robots and held-out songs."""
    if source.role != "vocals" or source.name.split("/")[-1] in ROBOTS:
        return []
    if source.kind == "song":
        singers = SINGERS_PER_SONG if per_song is None else per_song
        count = singers if source.split == "train" else 0
    else:
        count = TRACKS_PER_VOICE if source.kind == "voice" else 0
    stem = source.name.replace("/", "-")
    return [cache_dir() / "singing" / f"{stem}-{number}.flac" for number in range(1, count + 1)]


def make_singing(source: Source, say: Callable[[str], None] = print, per_song: int | None = None) -> list[Path]:
    """Make the missing singing of a source. Returns the new files.

    A voice that cannot sing is marked by empty files, so that it is not tried again.
    per_song: how many singers to make from a song; None means SINGERS_PER_SONG.
    Raises CorpusError if a file was made from another song of the same name.
    """
    files = singing_paths(source, per_song)
    missing = [path for path in files if not path.exists() and not path.with_suffix(".useless").exists()]
    for path in files:
        if source.kind == "song" and path.exists() and audio_length(path) != source.length_samples:
            raise CorpusError(f"{path} was made from another song called {source.group!r}: rename the song's folder")
    if not missing:
        return []
    missing[0].parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    rngs = [np.random.default_rng(zlib.crc32(path.stem.encode())) for path in missing]  # seeded by the name alone
    if source.kind == "song":
        made = resynthesise(source.read(0, source.length_samples), rngs)
    else:
        clips = [read_stereo(part).mean(axis=0) for part in source.parts]
        made = []
        for path, rng in zip(missing, rngs, strict=True):
            length = int(rng.uniform(*TRACK_S) * SAMPLE_RATE)
            try:
                formant = 1.0 if path == files[0] else float(rng.uniform(0.85, 1.18))
                made.append(sing_words(clips, rng, length, formant))
            except CorpusError as error:
                for useless in missing:
                    useless.with_suffix(".useless").touch()
                say(f"{source.name}: {error}")
                return []
    for path, audio in zip(missing, made, strict=True):
        assert np.isfinite(audio).all(), path.stem
        part = path.with_name(f"{path.stem}.{os.getpid()}.part")
        sf.write(str(part), audio.T, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        part.replace(path)
    seconds, took = sum(audio.shape[1] for audio in made) / SAMPLE_RATE, time.perf_counter() - began
    say(f"{source.name}: {seconds / 60:.1f} min of singing in {took:.0f} s, {seconds / took:.1f} x real time")
    return missing


def singing_sources(sources: list[Source], per_song: int | None = None) -> list[Source]:
    """The cached singing that was made from these sources, as sources of the kind "singing" in the same splits."""
    found = []
    for source in sources:
        if source.kind == "song":
            origin = "resung"
        else:
            origin = f"sung-{source.name.split('/')[0]}"
        for path in singing_paths(source, per_song):
            if path.exists():
                name = f"{origin}/{path.stem}"
                found.append(Source(name, "vocals", "singing", source.group, source.licence, source.split, (path,)))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.corpus.singing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--stems", type=Path, default=default_stems_folder(), help="folder of <song>/<stem>.{ogg,wav,flac}"
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="the split to make singing for")
    parser.add_argument("--no-packages", action="store_true", help="use only the stems folder, no Debian packages")
    parser.add_argument("--share", metavar="K/N", default="1/1", help="do the Kth of N parts of the work")
    options = parser.parse_args(arguments)
    try:
        k, n = (int(part) for part in options.share.split("/"))
    except ValueError:
        k, n = 0, 0
    if not 1 <= k <= n:
        parser.error(f"--share {options.share}: use K/N, such as 1/2 and 2/2")
    try:
        sources = song_sources(options.stems) if options.stems is not None else []
        if not options.no_packages:
            sources += package_sources(midi=False)
        sources = [source for source in sources if source.split == options.split and singing_paths(source)]
        for source in sources[k - 1 :: n]:
            make_singing(source, say=lambda line: print(line, flush=True))
    except CorpusError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
