"""Sources of sound for training and validation: where each comes from, its licence and its split.

Here are music and voices from Debian packages, which are fetched with `apt-get download` and unpacked into a cache
(nothing is installed). Folders of true stems are in layouts.py, what is played from MIDI in stems in takes.py, made
singers in singing.py; build.py puts it all together. What is held out is held out whole: a song, a composer, a
language, a sound bank, a drum kit; never pieces of them.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from ...errors import InputError
from .midi import render_midi, wad_midis

SAMPLE_RATE = 44_100
SPLITS = ("train", "valid", "valid-other", "test")
ROLES = ("vocals", "accompaniment")
PACKAGES = ("wesnoth-1.16-music", "hedgewars-data", "klettres-data", "fretsonfire-songs-sectoid")

_VALID_COMPOSERS = frozenset({"Mattias Westlund"})
#: Jonatan Nilsson's, by the package's credits.txt.
_VALID_HEDGEWARS = frozenset({"EarthRise", "oriental", "snow", "pirate"})
_VALID_VOICES = frozenset({"pt_BR", "HillBilly"})
_TEST_VOICES = frozenset({"it", "nb"})
#: Package to its sound bank's file and licence.
BANKS = {
    "fluid-soundfont-gm": ("FluidR3_GM.sf2", "MIT"),
    "timgm6mb-soundfont": ("TimGM6mb.sf2", "GPL-2"),
    "musescore-general-soundfont-lossless": ("MuseScore_General_Full.sf2", "MIT"),
}
VALID_BANK = "timgm6mb-soundfont"
_MIDI_BANKS = ("fluid-soundfont-gm", VALID_BANK)
_HELD_SONG_OF = 6
_MIN_MUSIC_S = 20.0
_LONG_S, _RESAMPLE_MARGIN = 30, 8192


class CorpusError(InputError):
    """A source is missing, unreadable, or not of the form that the corpus needs."""


@dataclass(frozen=True)
class Source:
    """One thing to draw sound from.

    name: unique, `<origin>/<what>`. role: "vocals" or "accompaniment". split: one of SPLITS.
    kind: "song" (a stem of a song: `group` names the song, and its parts are in sync), "rendered" (a band played from
    MIDI, as a song's; takes.py), "music" (a full recording without a partner), "voice" (many short clips of one speaker
    or pack) or "singing" (a long vocal made of a song's or of a voice's, without a partner but for a melody that was
    sung to a rendered band, whose `group` it has; singing.py).
    parts: files that are in sync and summed ("song", "rendered"), one file ("music", "singing"), or clips ("voice").
    labels: which stem each part is ("drums"); where there are none, the parts' file names.
    origin: the collection it is from; where it is empty, the first part of the name.
    """

    name: str
    role: str
    kind: str
    group: str
    licence: str
    split: str
    parts: tuple[Path, ...]
    labels: tuple[str, ...] = ()
    origin: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES or self.split not in SPLITS or not self.parts:
            raise CorpusError(f"source {self.name}: role={self.role!r}, split={self.split!r}, {len(self.parts)} parts")
        if self.labels and len(self.labels) != len(self.parts):
            raise CorpusError(f"source {self.name}: {len(self.labels)} labels for {len(self.parts)} parts")

    @property
    def stems(self) -> tuple[str, ...]:
        """Which stem each part is."""
        return self.labels or tuple(part.stem for part in self.parts)

    @property
    def collection(self) -> str:
        """The collection it is from."""
        return self.origin or self.name.split("/")[0]

    @property
    def length_samples(self) -> int:
        """Length at 44.1 kHz of what can be read: of the longest part (of a "voice": of the longest clip)."""
        return max(audio_length(part) for part in self.parts)

    @property
    def sound_s(self) -> float:
        """Seconds of sound: of a voice all clips, of anything else its length."""
        if self.kind == "voice":
            return sum(audio_length(part) for part in self.parts) / SAMPLE_RATE
        return self.length_samples / SAMPLE_RATE

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


def audio_length(path: Path) -> int:
    """Length of a file in samples at 44.1 kHz."""
    rate, frames = _info(path)
    return frames * SAMPLE_RATE // rate


def read_stereo(path: Path, start: int = 0, length: int | None = None) -> np.ndarray:
    """Samples [start, start + length) of a file at 44.1 kHz: (2, length) float32. Mono is doubled."""
    rate, frames = _info(path)
    length = audio_length(path) - start if length is None else length
    first, last, skip = start, start + length, 0
    if rate != SAMPLE_RATE:
        first, last, skip = 0, frames, start
        if frames > _LONG_S * rate:  # of a long file only what is asked for, and a little on both sides
            whole = SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE)  # so many samples are a whole number of the file's
            begin = max(start - _RESAMPLE_MARGIN, 0) // whole * whole
            first, skip = begin * rate // SAMPLE_RATE, start - begin
            last = min(frames, -(-(start + length + _RESAMPLE_MARGIN) * rate // SAMPLE_RATE))
    with sf.SoundFile(str(path)) as file:
        file.seek(min(first, frames))
        data = file.read(min(last, frames) - min(first, frames), dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        data = soxr.resample(data, rate, SAMPLE_RATE)[skip : skip + length]
    out = np.zeros((2, length), np.float32)
    out[:, : len(data)] = (data[:, [0, 0]] if data.shape[1] == 1 else data[:, :2]).T
    return out


@lru_cache(maxsize=256)
def activity(source: Source, window_s: float = 0.5) -> np.ndarray:
    """RMS per window of window_s: (N,) float32."""
    window = int(window_s * SAMPLE_RATE)
    audio = source.read(0, source.length_samples // window * window)
    return np.sqrt(np.mean(audio.reshape(2, -1, window) ** 2, axis=(0, 2)))


def is_fetched(package: str) -> bool:
    """Whether a Debian package is in the cache."""
    return (cache_dir() / "debian" / package).is_dir()


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
            f"Debian package {package} cannot be fetched ({error}): on Debian, run apt-get update first; "
            "--no-packages goes without packages"
        ) from error
    try:
        part.replace(folder)
    except OSError:  # another process has unpacked the same in the meantime
        if not folder.is_dir():
            raise
        shutil.rmtree(part)
    return folder


def _artist(path: Path) -> str:
    with sf.SoundFile(str(path)) as file:
        return str(file.artist)


def _wesnoth() -> list[Source]:
    sources = []
    for path in sorted(fetch_package("wesnoth-1.16-music").rglob("*.ogg")):
        if audio_length(path) >= _MIN_MUSIC_S * SAMPLE_RATE:
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


def freedoom_midis() -> list[tuple[Path, bool]]:
    """Freedoom's MIDI files, and whether each is held out: every sixth is."""
    songs = wad_midis(sorted(fetch_package("freedoom").rglob("*.wad")), cache_dir() / "midi")
    return [(song, number % _HELD_SONG_OF == _HELD_SONG_OF - 1) for number, song in enumerate(songs)]


def bank_path(package: str) -> Path:
    """The sound bank of a package of BANKS."""
    return next(fetch_package(package).rglob(BANKS[package][0]))


def _midi(only_cached: bool) -> list[Source]:
    """Freedoom's MIDI music by two sound banks; one bank, and every sixth song, are held out."""
    sources = []
    if only_cached and not all(is_fetched(package) for package in ("freedoom", *_MIDI_BANKS)):
        return []
    songs = freedoom_midis()
    for package in _MIDI_BANKS:
        licence = f"BSD-3-Clause (bank: {BANKS[package][1]})"
        held = package == VALID_BANK
        split = "valid-other" if held else "train"
        for song, song_is_held in songs:
            if held != song_is_held:
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
    """Sources of the Debian packages. midi: also play MIDI music (needs fluidsynth; two minutes, once).

    only_cached: fetch and play nothing, and leave out what is not there.
    """
    makers = (_wesnoth, _hedgewars, _klettres, _fretsonfire)
    chosen = [make for package, make in zip(PACKAGES, makers, strict=True) if not only_cached or is_fetched(package)]
    return [source for make in chosen for source in make()] + (_midi(only_cached) if midi else [])


def default_stems_folder() -> Path | None:
    """The folder that the environment variable STEMPROVER_STEMS names, if any."""
    folder = os.environ.get("STEMPROVER_STEMS")
    return Path(folder) if folder else None
