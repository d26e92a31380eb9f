"""Sources from Debian packages: music, voices, sound banks and MIDI songs, and how each is licensed and split.

Packages are downloaded with `apt-get download` and unpacked into the cache; nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import soundfile as sf

from .midi import render_midi, wad_midis
from .sources import SAMPLE_RATE, CorpusError, Source, audio_length, cache_dir

PACKAGES = ("wesnoth-1.16-music", "hedgewars-data", "klettres-data", "fretsonfire-songs-sectoid")

_VALID_COMPOSERS = frozenset({"Mattias Westlund"})
#: Tracks by Jonatan Nilsson, according to the package's credits.txt.
_VALID_HEDGEWARS = frozenset({"EarthRise", "oriental", "snow", "pirate"})
_VALID_VOICES = frozenset({"pt_BR", "HillBilly"})
_TEST_VOICES = frozenset({"it", "nb"})
#: Package: its sound bank's file name and licence.
BANKS = {
    "fluid-soundfont-gm": ("FluidR3_GM.sf2", "MIT"),
    "timgm6mb-soundfont": ("TimGM6mb.sf2", "GPL-2"),
    "musescore-general-soundfont-lossless": ("MuseScore_General_Full.sf2", "MIT"),
}
VALID_BANK = "timgm6mb-soundfont"
_MIDI_BANKS = ("fluid-soundfont-gm", VALID_BANK)
#: Of each package's MIDI songs, every sixth is held out.
HELD_OUT_EVERY = 6
_MIN_MUSIC_S = 20.0


def is_fetched(package: str) -> bool:
    """Whether a Debian package is in the cache."""
    return (cache_dir() / "debian" / package).is_dir()


def fetch_package(package: str) -> Path:
    """The folder of an unpacked Debian package, downloaded unless it is in the cache. Raises CorpusError on failure."""
    folder = cache_dir() / "debian" / package
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{package}.{os.getpid()}.part")
    try:
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder.parent, check=True, capture_output=True)
        archive = next(folder.parent.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(part)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CorpusError(
            f"Debian package {package} cannot be downloaded ({error}): run apt-get update first (on Debian), "
            "or leave packages out with --no-packages"
        ) from error
    try:
        part.replace(folder)
    except OSError:  # another process was faster
        if not folder.is_dir():
            raise
        shutil.rmtree(part)
    return folder


def _wesnoth() -> list[Source]:
    sources = []
    for path in sorted(fetch_package("wesnoth-1.16-music").rglob("*.ogg")):
        if audio_length(path) >= _MIN_MUSIC_S * SAMPLE_RATE:
            with sf.SoundFile(str(path)) as file:
                split = "valid-other" if file.artist in _VALID_COMPOSERS else "train"
            sources.append(Source(f"wesnoth/{path.stem}", "accompaniment", "music", "wesnoth", "GPL-2", split, (path,)))
    return sources


def _hedgewars() -> list[Source]:
    root = fetch_package("hedgewars-data")
    sources = []
    for path in sorted(root.rglob("Music/*.ogg")):
        split = "valid-other" if path.stem in _VALID_HEDGEWARS else "train"
        sources.append(Source(f"hedgewars/{path.stem}", "accompaniment", "music", "hedgewars", "GPL-2", split, (path,)))
    for folder in sorted(path for path in root.rglob("Sounds/voices/*") if path.is_dir()):
        sources.append(_voice(f"hedgewars-voice/{folder.name}", folder, "GFDL-1.3"))
    return sources


def _voice(name: str, folder: Path, licence: str) -> Source:
    clips = tuple(sorted(path for path in folder.rglob("*.ogg") if audio_length(path) > 0))
    splits = {**dict.fromkeys(_VALID_VOICES, "valid-other"), **dict.fromkeys(_TEST_VOICES, "test")}
    return Source(name, "vocals", "voice", name, licence, splits.get(folder.name, "train"), clips)


def _klettres() -> list[Source]:
    languages = sorted(fetch_package("klettres-data").glob("usr/share/klettres/*"))
    return [_voice(f"klettres/{path.name}", path, "GPL-2+") for path in languages if any(path.rglob("*.ogg"))]


def _fretsonfire() -> list[Source]:
    sources = []
    for path in sorted(fetch_package("fretsonfire-songs-sectoid").rglob("song.ogg")):
        parts = (path, path.with_name("guitar.ogg"))
        name = f"fretsonfire/{path.parent.name}"
        sources.append(Source(name, "accompaniment", "music", path.parent.name, "MIT (Expat)", "test", parts))
    return sources


def freedoom_midis() -> list[tuple[Path, bool]]:
    """Freedoom's MIDI files, each with whether it is held out."""
    songs = wad_midis(sorted(fetch_package("freedoom").rglob("*.wad")), cache_dir() / "midi")
    return [(song, number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) for number, song in enumerate(songs)]


def bank_path(package: str) -> Path:
    """The sound bank's file in a package of BANKS, downloaded if needed."""
    return next(fetch_package(package).rglob(BANKS[package][0]))


def _midi(only_cached: bool) -> list[Source]:
    """Freedoom's MIDI songs, each as one sound bank plays it: held-out songs with the held-out bank."""
    sources = []
    if only_cached and not all(is_fetched(package) for package in ("freedoom", *_MIDI_BANKS)):
        return []
    songs = freedoom_midis()
    for package in _MIDI_BANKS:
        licence = f"BSD-3-Clause (bank: {BANKS[package][1]})"
        bank_is_held_out = package == VALID_BANK
        split = "valid-other" if bank_is_held_out else "train"
        for song, song_is_held_out in songs:
            if bank_is_held_out != song_is_held_out:
                continue
            folder = cache_dir() / "midi" / package
            if only_cached and not (folder / f"{song.stem}.flac").exists():
                continue
            rendered = render_midi(song, bank_path(package), folder)
            if rendered is not None:
                name = f"freedoom-{package}/{song.stem}"
                sources.append(Source(name, "accompaniment", "music", package, licence, split, (rendered,)))
    return sources


def package_sources(midi: bool = True, only_cached: bool = False) -> list[Source]:
    """Sources from the Debian packages.

    midi: include rendered MIDI songs (needs fluidsynth; takes two minutes the first time).
    only_cached: download and render nothing; skip what is not in the cache.
    """
    makers = (_wesnoth, _hedgewars, _klettres, _fretsonfire)
    chosen = [make for package, make in zip(PACKAGES, makers, strict=True) if not only_cached or is_fetched(package)]
    return [source for make in chosen for source in make()] + (_midi(only_cached) if midi else [])
