"""Finds songs in folders of true stems: MUSDB18-HQ, MoisesDB, or any folder with files named after stems.

A song is a folder with files such as `vocals.wav`, `Drums.flac` or `01 My Song - lead vocals.ogg`, up to six levels
deep, or a track of MoisesDB (a folder with `data.json` and a subfolder of files for each stem).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ...stem_names import MIX, is_vocal, redundant_stems, stem_of
from .sources import ROLES, SAMPLE_RATE, CorpusError, Source, audio_length

SUFFIXES = (".wav", ".flac", ".ogg")
#: Subfolders of a song's folder; the song has the name of the folder above.
_INNER = frozenset({"stems", "audio", "wav", "wavs", "flac", "multitrack", "multitracks", "tracks", "raw"})
_DEPTH = 6
_MUSDB = ("mixture", "vocals", "drums", "bass", "other")
#: Songs with a fixed split: "Everything is remixed" by ichbinsoftware (CC0-1.0), which the shipped base is trained on.
SPLIT_OF = {"hydrogen": "train", "lithium": "train", "rubidium": "train", "sodium": "train", "francium": "valid"}
_HELD_OUT_OF_TEN = 1


@dataclass(frozen=True)
class Song:
    """A song and its (stem of `stem_names.STEMS`, file) pairs. origin: the collection it comes from."""

    name: str
    origin: str
    split: str
    licence: str
    stems: tuple[tuple[str, Path], ...]

    def excerpt(self, start_s: float, seconds: float) -> tuple[dict[str, np.ndarray], int]:
        """An excerpt of each stem, (C, T) float32 by name, unprocessed, and the sample rate in Hz.

        A stem's files are summed. If a file is too short, there are no stems.
        """
        found: dict[str, np.ndarray] = {}
        rate = soundfile.info(self.stems[0][1]).samplerate
        start, frames = round(start_s * rate), round(seconds * rate)
        for name, path in self.stems:
            audio = soundfile.read(path, frames, start, dtype="float32", always_2d=True)[0].T
            if audio.shape[1] < frames:
                return {}, rate
            found[name] = found[name] + audio if name in found else audio
        return found, rate

    def sources(self) -> list[Source]:
        """Up to two sources: the vocals, and the sum of all other stems."""
        found = []
        for role in ROLES:
            mine = [(stem, path) for stem, path in self.stems if is_vocal(stem) == (role == "vocals")]
            if mine:
                labels, parts = (tuple(column) for column in zip(*mine, strict=True))
                name = f"{self.name}/{role}"
                found.append(
                    Source(name, role, "song", self.name, self.licence, self.split, parts, labels, origin=self.origin)
                )
        return found


@dataclass(frozen=True)
class StemsFolder:
    """The songs in a folder of stems. left_out: (file, reason) for each audio file that was skipped."""

    folder: Path
    songs: tuple[Song, ...]
    left_out: tuple[tuple[Path, str], ...]

    def render_left_out(self, most: int = 5) -> str:
        """One line that names up to `most` of the skipped files; empty if there are none."""
        if not self.left_out:
            return ""
        named = [f"{path.relative_to(self.folder)} ({reason})" for path, reason in self.left_out[:most]]
        more = f" and {len(self.left_out) - most} more" if len(self.left_out) > most else ""
        return f"{self.folder}: skipped {', '.join(named)}{more}"


def split_of(name: str) -> str:
    """A song's split, from its name alone: "valid" for one in ten, else "train". Adding songs changes no split."""
    key = unicodedata.normalize("NFC", name).casefold()
    if key in SPLIT_OF:
        return SPLIT_OF[key]
    number = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:4], "big")
    return "valid" if number % 10 < _HELD_OUT_OF_TEN else "train"


def find_songs(folder: Path) -> StemsFolder:
    """The songs in a folder of stems, sorted by name. Raises CorpusError if there are none."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder: use one that holds <song>/<stem>.wav (or .flac, .ogg)")
    songs: list[Song] = []
    left_out: list[tuple[Path, str]] = []
    _walk(folder, folder, 0, songs, left_out)
    if not songs:
        named = f" (unknown: {', '.join(path.name for path, _ in left_out[:3])})" if left_out else ""
        raise CorpusError(
            f"{folder} holds no stems{named}: expected <song>/vocals.wav, drums.wav, bass.wav and so on (or .flac, "
            ".ogg), MUSDB18-HQ's folders train and test, or MoisesDB's <provider>/<track>/data.json"
        )
    songs.sort(key=lambda song: song.name)
    for one, other in pairwise(songs):
        if one.name == other.name:
            places = " and ".join(str(song.stems[0][1].parent) for song in (one, other))
            raise CorpusError(f"two songs are called {one.name!r}, in {places}: rename one of the folders")
    return StemsFolder(folder, tuple(songs), tuple(left_out))


def song_sources(folder: Path) -> list[Source]:
    """The sources of all songs in a folder: for each its vocals, and the sum of its other stems."""
    return [source for song in find_songs(folder).songs for source in song.sources()]


def _walk(root: Path, folder: Path, depth: int, songs: list[Song], left_out: list[tuple[Path, str]]) -> None:
    """Collect songs and skipped files of a folder and its subfolders in the two lists."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise CorpusError(f"{folder} cannot be read: {error}") from error
    if (folder / "data.json").is_file():
        track = _moisesdb_track(root, folder, left_out)
        if track is not None:
            songs.append(track)
            return
    files = [path for path in entries if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    stems = [(stem_of(path.name), path) for path in files]
    if any(stem is not None and stem != MIX for stem, _ in stems):
        song = _plain_song(root, folder, stems, left_out)
        if song is not None:
            songs.append(song)
    else:
        left_out += [(path, "unknown stem") for stem, path in stems if stem is None]
    if depth < _DEPTH:
        for path in entries:
            if path.is_dir() and not path.name.startswith("."):
                _walk(root, path, depth + 1, songs, left_out)


def _plain_song(
    root: Path, folder: Path, named: list[tuple[str | None, Path]], left_out: list[tuple[Path, str]]
) -> Song | None:
    """A song whose stems are the files of a folder; None if any of them cannot be used."""
    left_out += [(path, "unknown stem") for stem, path in named if stem is None]
    stems = _drop_duplicates([(stem, path) for stem, path in named if stem is not None and stem != MIX], left_out)
    if not _all_usable(stems, left_out):
        return None
    inner = folder != root and folder.name.lower() in _INNER
    song_folder = (folder.parent if inner else folder).resolve()
    name, subset = song_folder.name, song_folder.parent.name.lower()
    names = {path.stem.lower() for _, path in named}
    split = "test" if subset == "test" else split_of(name)
    is_musdb = subset in ("train", "test") and names.issuperset(_MUSDB)
    origin = "MUSDB18-HQ" if is_musdb else root.resolve().name
    return Song(name, origin, split, _licence(root, folder), tuple(stems))


def _drop_duplicates(stems: list[tuple[str, Path]], left_out: list[tuple[Path, str]]) -> list[tuple[str, Path]]:
    """The stems without those that are part of another one, or the same file in another format."""
    redundant = redundant_stems([stem for stem, _ in stems])
    kept: dict[str, tuple[str, Path]] = {}
    for stem, path in stems:
        other = kept.setdefault(path.stem.lower(), (stem, path)) if stem not in redundant else None
        if other != (stem, path):
            left_out.append((path, redundant[stem] if other is None else f"same as {other[1].name}"))
    return list(kept.values())


def _all_usable(stems: list[tuple[str, Path]], left_out: list[tuple[Path, str]]) -> bool:
    """Whether all stems are audio and the longest is at least a second; if not, all are skipped."""
    broken, longest = None, 0
    for _, path in stems:
        try:
            longest = max(longest, audio_length(path))
        except CorpusError:
            broken = path
    if broken is None and longest >= SAMPLE_RATE:
        return True
    reason = f"{broken.name} cannot be read" if broken is not None else "shorter than a second"
    left_out += [(path, reason) for _, path in stems]
    return False


def _moisesdb_track(root: Path, folder: Path, left_out: list[tuple[Path, str]]) -> Song | None:
    """A track of MoisesDB, with all files of a stem to be summed; None if data.json is not MoisesDB's."""
    about = _json(folder / "data.json")
    if not isinstance(about.get("stems"), list):
        return None
    stems: list[tuple[str, Path]] = []
    for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES):
        stem = stem_of(path.parent.name)
        if stem is None or stem == MIX:
            left_out.append((path, "unknown stem"))
        else:
            stems.append((stem, path))
    if not stems or not _all_usable(stems, left_out):
        return None
    return Song(folder.name, "MoisesDB", split_of(folder.name), _licence(root, folder), tuple(stems))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _licence(root: Path, folder: Path) -> str:
    """The licence in info.json, else the first line of a licence file in the song's folder or above, up to the root."""
    note = _json(folder / "info.json")
    stated = note.get("licence") or note.get("license")
    if stated:
        return str(stated)
    places = [folder, *folder.parents]
    for place in places[: places.index(root) + 1] if root in places else [folder]:
        for path in sorted(place.iterdir()):
            if re.fullmatch(r"(licen[cs]e|copying)(\.(txt|md))?", path.name, re.IGNORECASE) and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                lines = [line.strip(" \t#*") for line in text.splitlines()]
                first = next((line for line in lines if line), "")
                if first:
                    return first[:80]
    return "not stated"
