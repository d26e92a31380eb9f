"""Sources of sound for training and validation: where each comes from, its licence and its split.

Two kinds: a folder of true stems (`<song>/<stem>.{ogg,wav,flac}`), and music and voices from Debian packages, which
are fetched with `apt-get download` and unpacked into a cache (nothing is installed). What is held out is held out
whole: a song, a composer, a language, a sound bank; never pieces of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from ..errors import InputError
from .midi import render_midi, wad_midis

SAMPLE_RATE = 44_100
SPLITS = ("train", "valid", "valid-other", "test")
ROLES = ("vocals", "accompaniment")
PACKAGES = (
    "wesnoth-1.16-music", "hedgewars-data", "klettres-data", "fretsonfire-songs-sectoid", "freedoom",
    "fluid-soundfont-gm", "timgm6mb-soundfont",
)  # fmt: skip

#: Songs of the stems folder that no weight may see (of "Everything is remixed" by ichbinsoftware, CC0-1.0).
VALID_SONGS = frozenset({"francium"})
_VALID_COMPOSERS = frozenset({"Mattias Westlund"})
#: Jonatan Nilsson's, by the package's credits.txt.
_VALID_HEDGEWARS = frozenset({"EarthRise", "oriental", "snow", "pirate"})
_VALID_VOICES = frozenset({"pt_BR", "HillBilly"})
_TEST_VOICES = frozenset({"it", "nb"})
BANKS = {"fluid-soundfont-gm": ("FluidR3_GM.sf2", "MIT"), "timgm6mb-soundfont": ("TimGM6mb.sf2", "GPL-2")}
VALID_BANK = "timgm6mb-soundfont"
_SUFFIXES = (".ogg", ".wav", ".flac")
_MIN_MUSIC_S = 20.0


class CorpusError(InputError):
    """A source is missing, unreadable, or not of the form that the corpus needs."""


@dataclass(frozen=True)
class Source:
    """One thing to draw sound from.

    name: unique, `<origin>/<what>`. role: "vocals" or "accompaniment". split: one of SPLITS.
    kind: "song" (a stem of a song: `group` names the song, and its parts are in sync), "music" (a full recording
    without a partner), "voice" (many short clips of one speaker or pack) or "singing" (a long vocal made of a song's or
    of a voice's, without a partner; singing.py).
    parts: files that are in sync and summed ("song"), one file ("music", "singing"), or clips ("voice").
    """

    name: str
    role: str
    kind: str
    group: str
    licence: str
    split: str
    parts: tuple[Path, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES or self.split not in SPLITS or not self.parts:
            raise CorpusError(f"source {self.name}: role={self.role!r}, split={self.split!r}, {len(self.parts)} parts")

    @property
    def length_samples(self) -> int:
        """Length at 44.1 kHz of what can be read: of the longest part ("song", "music", "singing")."""
        return max(_length(part) for part in self.parts)

    def read(self, start: int, length: int, parts: tuple[Path, ...] | None = None) -> np.ndarray:
        """Samples [start, start + length) at 44.1 kHz, summed over the parts (or those given): (2, length) float32.

        What lies outside of the recording is silence.
        """
        out = np.zeros((2, length), np.float32)
        for part in self.parts if parts is None else parts:
            out += read_stereo(part, start, length)
        return out


def cache_dir() -> Path:
    """Where downloads are kept: $STEMPROVER_CACHE, else $XDG_CACHE_HOME/stemprover, else ~/.cache/stemprover."""
    own = os.environ.get("STEMPROVER_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stemprover"


@lru_cache(maxsize=4096)
def _info(path: Path) -> tuple[int, int]:
    """(sample rate, frames) of a file."""
    try:
        info = sf.info(str(path))
    except sf.LibsndfileError as error:
        raise CorpusError(f"{path} cannot be read as audio: {error}") from error
    return int(info.samplerate), int(info.frames)


def _length(path: Path) -> int:
    rate, frames = _info(path)
    return frames * SAMPLE_RATE // rate


def read_stereo(path: Path, start: int = 0, length: int | None = None) -> np.ndarray:
    """Samples [start, start + length) of a file at 44.1 kHz: (2, length) float32. Mono is doubled."""
    rate, frames = _info(path)
    length = _length(path) - start if length is None else length
    if rate != SAMPLE_RATE:
        data, _ = sf.read(str(path), dtype="float32", always_2d=True)
        data = soxr.resample(data, rate, SAMPLE_RATE)[start : start + length]
    else:
        with sf.SoundFile(str(path)) as file:
            file.seek(min(start, frames))
            data = file.read(min(length, max(frames - start, 0)), dtype="float32", always_2d=True)
    out = np.zeros((2, length), np.float32)
    out[:, : len(data)] = (data[:, [0, 0]] if data.shape[1] == 1 else data[:, :2]).T
    return out


@lru_cache(maxsize=256)
def activity(source: Source, window_s: float = 0.5) -> np.ndarray:
    """RMS per window of window_s: (N,) float32."""
    window = int(window_s * SAMPLE_RATE)
    audio = source.read(0, source.length_samples // window * window)
    return np.sqrt(np.mean(audio.reshape(2, -1, window) ** 2, axis=(0, 2)))


def song_sources(folder: Path) -> list[Source]:
    """Sources of a folder of songs: for each `<song>/`, its vocals, and the sum of its other stems."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder: give one that holds <song>/<stem>.ogg (or .wav, .flac)")
    sources = []
    for song in sorted(path for path in folder.iterdir() if path.is_dir()):
        stems = sorted(path for path in song.iterdir() if path.suffix in _SUFFIXES)
        split = "valid" if song.name in VALID_SONGS else "train"
        note = song / "info.json"
        licence = str(json.loads(note.read_text()).get("licence", "not stated")) if note.exists() else "not stated"
        for role in ROLES:
            parts = tuple(path for path in stems if (path.stem == "vocals") == (role == "vocals"))
            if parts:
                sources.append(Source(f"{song.name}/{role}", role, "song", song.name, licence, split, parts))
    return sources


def fetch_package(package: str) -> Path:
    """Folder with the unpacked Debian package; downloads it by `apt-get download` when it is not in the cache yet."""
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
            f"Debian package {package} cannot be fetched ({error}): on Debian, run apt-get update first"
        ) from error
    part.replace(folder)
    return folder


def _artist(path: Path) -> str:
    with sf.SoundFile(str(path)) as file:
        return str(file.artist)


def _wesnoth() -> list[Source]:
    sources = []
    for path in sorted(fetch_package("wesnoth-1.16-music").rglob("*.ogg")):
        if _length(path) >= _MIN_MUSIC_S * SAMPLE_RATE:
            split = "valid-other" if _artist(path) in _VALID_COMPOSERS else "train"
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
    clips = tuple(sorted(path for path in folder.rglob("*.ogg") if _info(path)[1] > 0))
    held = {**dict.fromkeys(_VALID_VOICES, "valid-other"), **dict.fromkeys(_TEST_VOICES, "test")}
    return Source(name, "vocals", "voice", name, licence, held.get(folder.name, "train"), clips)


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


def _midi() -> list[Source]:
    """Freedoom's MIDI music by two sound banks; one bank, and every sixth song, are held out."""
    root = fetch_package("freedoom")
    songs = wad_midis(sorted(root.rglob("*.wad")), cache_dir() / "midi")
    sources = []
    for package, (bank_name, licence) in BANKS.items():
        bank = next(fetch_package(package).rglob(bank_name))
        for number, song in enumerate(songs):
            held = package == VALID_BANK
            if held != (number % 6 == 5):
                continue
            rendered = render_midi(song, bank, cache_dir() / "midi" / package)
            if rendered is not None:
                split = "valid-other" if held else "train"
                name = f"freedoom-{package}/{song.stem}"
                sources.append(
                    Source(
                        name, "accompaniment", "music", package, f"BSD-3-Clause (bank: {licence})", split, (rendered,)
                    )
                )
    return sources


def package_sources(midi: bool = True) -> list[Source]:
    """Sources of the Debian packages. midi: also play MIDI music (needs fluidsynth; two minutes, once)."""
    return [*_wesnoth(), *_hedgewars(), *_klettres(), *_fretsonfire(), *(_midi() if midi else [])]


def default_stems_folder() -> Path | None:
    """The folder that the environment variable STEMPROVER_STEMS names, if any."""
    folder = os.environ.get("STEMPROVER_STEMS")
    return Path(folder) if folder else None
