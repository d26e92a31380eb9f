"""Folders of true stems as people have them: MUSDB18-HQ's and MoisesDB's layouts, any folder of files named by stem.

A song is a folder with files such as `vocals.wav`, `Drums.flac` or `01 My Song - lead vocals.ogg`, at any depth up to
six, or a track of MoisesDB (a folder with `data.json` and a sub-folder of files for each stem).
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

from .sources import ROLES, SAMPLE_RATE, CorpusError, Source, audio_length

SUFFIXES = (".wav", ".flac", ".ogg")
MIX = "mix"
WHOLE_BAND = "accompaniment"
#: What a stem is called in the pool, and what people call it: in lower case, without digits and punctuation.
STEMS = {
    "vocals": "vocals vocal vox voc voice voices singer singing acapella acappella",
    "lead vocals": "lead vocals|lead vocal|lead vox|main vocals|main vocal|leadvox|lead voice|leadvocals",
    "backing vocals": "backing vocals|backing vocal|background vocals|backing vox|backingvocals|choir|bvs|bgv|"
    "harmonies",
    "drums": "drums|drum|drumkit|drum kit|beat|beats|kick|kick drum|bass drum|snare|snare drum|hihat|hi hat|toms|tom|"
    "cymbals|overheads|overhead|drum machine",
    "percussion": "percussion percussions perc",
    "bass": "bass|basses|bass guitar|electric bass|upright bass|double bass|contrabass|synth bass|bass synth|sub bass",
    "guitar": "guitar|guitars|gtr|acoustic guitar|electric guitar|lead guitar|rhythm guitar|acoustic guitars|"
    "electric guitars",
    "piano": "piano|pianos|grand piano|electric piano|rhodes|epiano",
    "keys": "keys|keyboard|keyboards|organ|other keys",
    "synth": "synth|synths|synthesizer|synthesiser|pad|pads|lead synth",
    "strings": "strings|bowed strings|violin|violins|viola|cello|orchestra",
    "wind": "wind|winds|brass|horns|horn|saxophone|sax|trumpet|trombone|flute|woodwinds",
    "plucked": "other plucked|plucked|banjo|mandolin|ukulele|harp",
    "other": "other others rest instruments fx",
    WHOLE_BAND: "accompaniment|instrumental|instrumentals|inst|backing|backing track|backingtrack|karaoke|no vocals|"
    "novocals|without vocals|minus vocals|no vox|minus one|band",
    MIX: "mixture|mix|mixdown|full mix|fullmix|master|original|song|full|full song",
}  # fmt: skip
_STEM_OF = {word: stem for stem, words in STEMS.items() for word in words.split("|" if "|" in words else " ")}
#: Words behind a stem's name that say nothing about which stem it is.
_ASIDES = frozenset({
    "dry", "wet", "di", "amp", "in", "out", "l", "r", "left", "right", "top", "bottom", "stereo", "mono", "stem",
    "stems", "final", "take", "bus", "raw",
})  # fmt: skip
#: Folders inside a song's, whose own name is nobody's.
_INNER = frozenset({"stems", "audio", "wav", "wavs", "flac", "multitrack", "multitracks", "tracks", "raw"})
_DEPTH = 6
_MUSDB = ("mixture", "vocals", "drums", "bass", "other")
#: Songs whose split is set: of "Everything is remixed" by ichbinsoftware (CC0-1.0), on which the shipped base stands.
SPLIT_OF = {"hydrogen": "train", "lithium": "train", "rubidium": "train", "sodium": "train", "francium": "valid"}
_HELD_OUT_OF_TEN = 1


@dataclass(frozen=True)
class Song:
    """A song's stems: (what it is called in the pool, file) each. origin: what kind of collection it is from."""

    name: str
    origin: str
    split: str
    licence: str
    stems: tuple[tuple[str, Path], ...]

    def excerpt(self, start_s: float, seconds: float) -> tuple[dict[str, np.ndarray], int]:
        """Its stems there, as they are, (C, T) float32 by name; and their rate in Hz. Of a stem of several files the
        sum; nothing at all where one is shorter than that."""
        found: dict[str, np.ndarray] = {}
        rate = soundfile.info(self.stems[0][1]).samplerate
        start, frames = round(start_s * rate), round(seconds * rate)
        for name, path in self.stems:
            sound = soundfile.read(path, frames, start, dtype="float32", always_2d=True)[0].T
            if sound.shape[1] < frames:
                return {}, rate
            found[name] = found[name] + sound if name in found else sound
        return found, rate

    def sources(self) -> list[Source]:
        """The vocals, and the sum of the other stems; one of them may not be there."""
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
    """What was found in a folder of stems. left_out: (file, why) for each audio file that is in no song."""

    folder: Path
    songs: tuple[Song, ...]
    left_out: tuple[tuple[Path, str], ...]

    def render_left_out(self, most: int = 5) -> str:
        """One line that names what was left out; empty where nothing was."""
        if not self.left_out:
            return ""
        named = [f"{path.relative_to(self.folder)} ({why})" for path, why in self.left_out[:most]]
        rest = f" and {len(self.left_out) - most} more" if len(self.left_out) > most else ""
        return f"{self.folder}: left out {', '.join(named)}{rest}"


def is_vocal(stem: str) -> bool:
    """Whether a stem of STEMS is sung."""
    return stem.endswith("vocals")


def stem_of(file_name: str) -> str | None:
    """Which stem of STEMS a file is by its name, without regard to case, digits and punctuation; None if unknown.

    The whole name counts, else its last two words, else its last: `My Song - No Vocals.wav` is an accompaniment.
    """
    text = unicodedata.normalize("NFKD", Path(file_name).stem)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = [word for word in re.split(r"[\W\d_]+", text.lower()) if word]
    while len(words) > 1 and words[-1] in _ASIDES and " ".join(words) not in _STEM_OF:
        words.pop()
    for count in (len(words), 2, 1):
        stem = _STEM_OF.get(" ".join(words[-count:]))
        if stem is not None:
            return stem
    return None


def split_of(name: str) -> str:
    """The split of a song by its name alone: about one in ten is held out ("valid"), and adding songs moves none."""
    key = unicodedata.normalize("NFC", name).casefold()
    if key in SPLIT_OF:
        return SPLIT_OF[key]
    number = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:4], "big")
    return "valid" if number % 10 < _HELD_OUT_OF_TEN else "train"


def find_songs(folder: Path) -> StemsFolder:
    """The songs in a folder of stems, sorted by name. Raises CorpusError where there is none."""
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder: give one that holds <song>/<stem>.wav (or .flac, .ogg)")
    songs: list[Song] = []
    left_out: list[tuple[Path, str]] = []
    _walk(folder, folder, 0, songs, left_out)
    if not songs:
        named = f" ({', '.join(path.name for path, _ in left_out[:3])} is no stem that is known)" if left_out else ""
        raise CorpusError(
            f"{folder} holds no stems{named}: expected are <song>/vocals.wav, drums.wav, bass.wav or the like "
            "(.flac, .ogg), the folders train and test of MUSDB18-HQ, or <provider>/<track>/data.json of MoisesDB"
        )
    songs.sort(key=lambda song: song.name)
    for one, other in pairwise(songs):
        if one.name == other.name:
            places = " and ".join(str(song.stems[0][1].parent) for song in (one, other))
            raise CorpusError(f"two songs are called {one.name!r}, in {places}: rename one of the folders")
    return StemsFolder(folder, tuple(songs), tuple(left_out))


def song_sources(folder: Path) -> list[Source]:
    """Sources of a folder of songs: for each its vocals, and the sum of its other stems."""
    return [source for song in find_songs(folder).songs for source in song.sources()]


def _walk(root: Path, folder: Path, depth: int, songs: list[Song], left_out: list[tuple[Path, str]]) -> None:
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
        left_out += [(path, "no known stem") for stem, path in stems if stem is None]
    if depth < _DEPTH:
        for path in entries:
            if path.is_dir() and not path.name.startswith("."):
                _walk(root, path, depth + 1, songs, left_out)


def _plain_song(
    root: Path, folder: Path, named: list[tuple[str | None, Path]], left_out: list[tuple[Path, str]]
) -> Song | None:
    left_out += [(path, "no known stem") for stem, path in named if stem is None]
    stems = _once([(stem, path) for stem, path in named if stem is not None and stem != MIX], left_out)
    if not _readable(stems, left_out):
        return None
    inner = folder != root and folder.name.lower() in _INNER
    home = (folder.parent if inner else folder).resolve()
    name, subset = home.name, home.parent.name.lower()
    names = {path.stem.lower() for _, path in named}
    split = "test" if subset == "test" else split_of(name)
    is_musdb = subset in ("train", "test") and names.issuperset(_MUSDB)
    origin = "MUSDB18-HQ" if is_musdb else root.resolve().name
    return Song(name, origin, split, _licence(root, folder), tuple(stems))


def _once(stems: list[tuple[str, Path]], left_out: list[tuple[Path, str]]) -> list[tuple[str, Path]]:
    """The stems without those whose sound is in another one already."""
    names = {stem for stem, _ in stems}
    doubled: dict[str, str] = {}
    if "vocals" in names:
        doubled |= dict.fromkeys(("lead vocals", "backing vocals"), "in the vocals already")
    if WHOLE_BAND in names:
        if names.issuperset(("drums", "bass", "other")):
            doubled[WHOLE_BAND] = "its stems are there"
        else:
            rest = (stem for stem in names if stem != WHOLE_BAND and not is_vocal(stem))
            doubled |= dict.fromkeys(rest, "in the accompaniment already")
    kept: dict[str, tuple[str, Path]] = {}
    for stem, path in stems:
        other = kept.setdefault(path.stem.lower(), (stem, path)) if stem not in doubled else None
        if other != (stem, path):
            left_out.append((path, doubled[stem] if other is None else f"{other[1].name} is there"))
    return list(kept.values())


def _readable(stems: list[tuple[str, Path]], left_out: list[tuple[Path, str]]) -> bool:
    """Whether all stems are audio, the longest of a second or more; else all are left out: a song has to be whole."""
    broken, longest = None, 0
    for _, path in stems:
        try:
            longest = max(longest, audio_length(path))
        except CorpusError:
            broken = path
    if broken is None and longest >= SAMPLE_RATE:
        return True
    why = f"{broken.name} cannot be read" if broken is not None else "empty"
    left_out += [(path, why) for _, path in stems]
    return False


def _moisesdb_track(root: Path, folder: Path, left_out: list[tuple[Path, str]]) -> Song | None:
    """A track of MoisesDB; None where data.json is something else's. All files of a stem are summed."""
    about = _json(folder / "data.json")
    if not isinstance(about.get("stems"), list):
        return None
    stems: list[tuple[str, Path]] = []
    for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES):
        stem = stem_of(path.parent.name)
        if stem is None or stem == MIX:
            left_out.append((path, "no known stem"))
        else:
            stems.append((stem, path))
    if not stems or not _readable(stems, left_out):
        return None
    return Song(folder.name, "MoisesDB", split_of(folder.name), _licence(root, folder), tuple(stems))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _licence(root: Path, folder: Path) -> str:
    """As info.json says, else the first line of a licence's text beside the song or above it, up to the root."""
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
