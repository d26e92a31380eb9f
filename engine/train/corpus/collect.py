"""Gathers the sources of a corpus: folders of stems, Debian packages, rendered songs and singing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .layouts import find_songs
from .packages import PACKAGES, is_fetched, package_sources
from .rendered_songs import PACKAGES as RENDERED_SONG_PACKAGES
from .rendered_songs import list_rendered_sources, render_songs
from .singing import SINGERS_PER_SONG, make_singing, singing_sources
from .sources import CorpusError, Source

#: At most this many resynthesised singers are made from the songs, over all of them.
_MOST_SINGERS = 40


def stem_sources(folders: Sequence[Path], say: Callable[[str], None]) -> list[Source]:
    """The sources in folders of stems. Reports skipped files. Raises CorpusError if two songs have the same name."""
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


def count_training_songs(sources: Sequence[Source]) -> int:
    """How many songs with vocals there are to train on."""
    return sum(source.kind == "song" and source.role == "vocals" and source.split == "train" for source in sources)


def singers_per_song(sources: Sequence[Source]) -> int:
    """How many singers to resynthesise from each training song: the more songs there are, the fewer."""
    songs = count_training_songs(sources)
    return min(SINGERS_PER_SONG, _MOST_SINGERS // songs) if songs else 0


def list_sources(stems: Sequence[Path], packages: bool, say: Callable[[str], None]) -> list[Source]:
    """All sources that are on disk. Downloads, renders and resynthesises nothing."""
    sources = stem_sources(stems, say)
    missing = [package for package in (*PACKAGES, *RENDERED_SONG_PACKAGES) if not is_fetched(package)]
    if packages and missing:
        say(f"Not downloaded yet: {', '.join(dict.fromkeys(missing))}")
    if packages:
        sources += package_sources(only_cached=True)
    return _with_derived(sources, packages)


def make_sources(stems: Sequence[Path], packages: bool, say: Callable[[str], None]) -> list[Source]:
    """All sources. Downloads, renders and resynthesises what is missing."""
    sources = stem_sources(stems, say)
    if packages:
        say("downloading packages and rendering MIDI songs (cached; the first time takes half an hour on two cores)")
        sources += package_sources()
        render_songs(sources, say)
    per_song = singers_per_song(sources)
    for source in sources:
        if source.split == "train":
            make_singing(source, say, per_song)
    return _with_derived(sources, packages)


def _with_derived(sources: list[Source], packages: bool) -> list[Source]:
    """The sources, the rendered songs in the cache, and the singing in the cache that was made from the sources."""
    train = [source for source in sources if source.split == "train"]
    rendered = list_rendered_sources() if packages else []
    return [*sources, *rendered, *singing_sources(train, singers_per_song(sources))]
