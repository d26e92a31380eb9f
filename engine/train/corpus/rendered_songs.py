"""Songs played from MIDI in stems, "takes": drums on a recorded kit, the rest with a sound bank, a voice on the melody.

    <cache>/takes/<take>/{drums,bass,guitar,piano,other,vocals}.flac, take.json

Each take has its own programs (within their families), key, tempo, excerpt, balance, equaliser, saturation and room,
all of which hang on its name alone. What is held out is held out whole: songs, a sound bank, two kits, two voices; a
take is made either of such alone, or of none.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from .kits import Hit, Kit, play, read_kit
from .layouts import Song
from .melody import DRUM_CHANNEL, Note, find_melody, notes_of, sing_melody
from .midi import can_play, play_midi, read_midi, write_midi
from .mixing import even, loudness, on_stage
from .singing import ROBOTS
from .sources import (
    BANKS,
    SAMPLE_RATE,
    VALID_BANK,
    CorpusError,
    Source,
    bank_path,
    cache_dir,
    fetch_package,
    freedoom_midis,
    is_fetched,
    read_stereo,
)
from .words import CLIPS_PER_TRACK

VERSION = 1  # of what a take is, since takes are kept
SCORE_PACKAGES = ("freedoom", "openttd-openmsx")
KIT_PACKAGE = "hydrogen-drumkits"
TRAIN_BANKS = ("fluid-soundfont-gm", "musescore-general-soundfont-lossless")
PACKAGES = (*SCORE_PACKAGES, KIT_PACKAGE, VALID_BANK, *TRAIN_BANKS)
#: Kits that no weight may see: one recorded, one electronic, of makers who have no other kit here.
VALID_KITS = frozenset({"ColomboAcousticDrumkit", "Audiophob"})
#: Licences by the kits' folders, from the package's copyright file, since not every drumkit.xml states one.
_KIT_LICENCES = {
    **dict.fromkeys(("ElectricEmpireKit", "HardElectro1", "VariBreaks", "ColomboAcousticDrumkit"), "GPL-2+"),
    **dict.fromkeys(("Millo-Drums_v.1", "Millo_MultiLayered2", "Millo_MultiLayered3", "ForzeeStereo"), "GPL-2"),
    **dict.fromkeys(("Gimme A Hand 1.0", "The Black Pearl 1.0"), "GPL-2"),
    "BJA_Pacific": "CC-BY-SA-3.0-US", "circAfrique v4": "CC-BY-SA-3.0", "rumpf_kit_z01_h2": "CC-BY-3.0",
    "Audiophob": "CC0-1.0",
}  # fmt: skip
TAKES_PER_SONG = {"freedoom": 1, "openttd": 3}
TAKE_S = (75.0, 105.0)
_SHORTEST_S = 30.0
_HELD_SONG_OF = 6
_SEMITONES = (-5, 6)
_TEMPO = (0.85, 1.2)
#: Families of eight programs to the stem that they are; all others are "other".
_STEM_OF_FAMILY = {0: "piano", 3: "guitar", 4: "bass"}
_STEMS = ("drums", "bass", "guitar", "piano", "other")
#: Families whose programs are alike enough to stand for each other.
_FAMILIES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
_QUIET = 1e-3
_MOST_AT_ONCE = 4


@dataclass(frozen=True)
class Score:
    """A MIDI song. origin: "freedoom" or "openttd". held: whether no weight may see it."""

    path: Path
    origin: str
    licence: str
    held: bool


@dataclass(frozen=True)
class Cast:
    """Who may play in a split: sound banks (name, file, licence), kits, voices."""

    banks: tuple[tuple[str, Path, str], ...]
    kits: tuple[Kit, ...]
    voices: tuple[Source, ...]


@dataclass
class Take:
    """A take as it is made: stems by name, (2, T) float32, and what it was made of, ready for JSON."""

    stems: dict[str, np.ndarray] = field(default_factory=dict)
    made_of: dict[str, Any] = field(default_factory=dict)


def scores() -> list[Score]:
    """The MIDI songs of the packages, fetched where they are not yet; every sixth of each package is held out."""
    found = [Score(path, "freedoom", "BSD-3-Clause", held) for path, held in freedoom_midis()]
    others = sorted(fetch_package("openttd-openmsx").rglob("*.mid"))
    for number, path in enumerate(others):
        found.append(Score(path, "openttd", "GPL-2", number % _HELD_SONG_OF == _HELD_SONG_OF - 1))
    return found


def kits(folder: Path) -> list[Kit]:
    """The kits in a folder that can play a song, by name; those that cannot be read are left out."""
    found = []
    for xml in sorted(folder.rglob("drumkit.xml")):
        try:
            kit = read_kit(xml)
        except CorpusError:
            continue
        kit = replace(kit, licence=_KIT_LICENCES.get(xml.parent.name, kit.licence))
        if kit.complete:
            found.append(kit)
    return sorted(found, key=lambda kit: kit.name)


def casts(voices: list[Source]) -> dict[bool, Cast]:
    """Who plays what is held out (True), and what is trained on (False); fetches banks and kits."""
    drums = kits(fetch_package(KIT_PACKAGE))
    singers = [voice for voice in voices if voice.kind == "voice" and voice.name.split("/")[-1] not in ROBOTS]
    found = {}
    for held, packages in ((True, (VALID_BANK,)), (False, TRAIN_BANKS)):
        banks = tuple((package, bank_path(package), BANKS[package][1]) for package in packages)
        mine = tuple(kit for kit in drums if (kit.name in VALID_KITS) == held)
        split = "valid-other" if held else "train"
        found[held] = Cast(banks, mine, tuple(voice for voice in singers if voice.split == split))
        if not mine:
            raise CorpusError(f"{KIT_PACKAGE} has no drum kit for split {split} that can play a song")
    return found


def take_names(score: Score) -> list[str]:
    """The names of a song's takes; their folders' too."""
    return [f"{score.origin}-{score.path.stem}-{n}" for n in range(1, TAKES_PER_SONG.get(score.origin, 1) + 1)]


def takes_folder() -> Path:
    """Where takes are kept."""
    return cache_dir() / "takes" / f"v{VERSION}"


def make_takes(voices: list[Source], say: Callable[[str], None] = print, *, held_out_only: bool = False) -> None:
    """Make the takes that are not there yet, or of the songs that are held out alone. Without fluidsynth there are
    none, and a line says so."""
    if not can_play():
        say("fluidsynth is not installed, so no songs are played from MIDI (apt-get install fluidsynth)")
        return
    played = [score for score in scores() if score.held or not held_out_only]
    wanted = [(score, name) for score in played for name in take_names(score)]
    missing = [(score, name) for score, name in wanted if not (takes_folder() / name / "take.json").exists()]
    if not missing:
        return
    cast = casts(voices)

    def make(score: Score, name: str) -> str:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        about: dict[str, Any] = {"split": "valid-other" if score.held else "train", "origin": score.origin}
        try:
            take = make_take(score, cast[score.held], rng)
        except (CorpusError, ValueError) as error:
            take = Take()
            about["useless"] = str(error)
        _write(takes_folder() / name, take, about)
        return about.get("useless") or ", ".join(take.stems)

    # Most of a take's time goes by in fluidsynth, a process of its own that takes one core and half a gigabyte.
    workers = ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, _MOST_AT_ONCE)))
    try:
        for number, ((_, name), what) in enumerate(
            zip(missing, workers.map(make, *zip(*missing, strict=True)), strict=True), 1
        ):
            say(f"take {number} of {len(missing)}, {name}: {what}")
    finally:
        workers.shutdown(cancel_futures=True)


def make_take(score: Score, cast: Cast, rng: np.random.Generator) -> Take:
    """A song played anew. Raises CorpusError or ValueError where it is too short, silent, or no MIDI file."""
    wanted_s, tempo = float(rng.uniform(*TAKE_S)), float(rng.uniform(*_TEMPO))
    semitones = int(rng.integers(*_SEMITONES))
    events = [(at / tempo, message) for at, message in read_midi(score.path)]
    whole = notes_of(events)
    last_s = max((note.end_s for note in whole), default=0.0)
    if last_s < _SHORTEST_S:
        raise CorpusError(f"{last_s:.0f} s are too short")
    start_s = float(rng.uniform(0, max(last_s - wanted_s, 0.0)))
    seconds = min(wanted_s, last_s - start_s + 1.0)
    events = _excerpt(_vary(events, semitones, rng), start_s, seconds)
    notes = [note for note in notes_of(events) if note.start_s < seconds]
    bank, kit = cast.banks[rng.integers(len(cast.banks))], cast.kits[rng.integers(len(cast.kits))]
    line = find_melody(notes, seconds)
    # A voice takes the place of the instrument that has the melody alone, or sings along with it.
    alone = bool(line) and len(line) > 0.7 * sum(note.channel == line[0].channel for note in notes)
    instead = alone and bool(rng.random() < 0.7)
    take = Take(made_of={
        "score": f"{score.origin}/{score.path.stem}", "score_licence": score.licence, "bank": bank[0],
        "bank_licence": bank[2], "semitones": semitones, "tempo": round(tempo, 3), "start_s": round(start_s, 2),
    })  # fmt: skip
    length = int(seconds * SAMPLE_RATE)
    voice, sung_by = _voice(cast, line, length, rng)
    silent = {line[0].channel} if voice is not None and instead else set()
    for stem, channels in _channels(notes, silent).items():
        sound = _play(events, channels, bank[1], seconds)
        if float(np.sqrt(np.mean(sound**2))) > _QUIET:
            take.stems[stem] = on_stage(sound, stem, rng)
    hits = [Hit(n.start_s, n.pitch, n.velocity / 127) for n in notes if n.channel == DRUM_CHANNEL]
    drums = play(kit, hits, length, rng)
    if float(np.sqrt(np.mean(drums**2))) > _QUIET:
        level = loudness(sum(take.stems.values(), np.zeros((2, length), np.float32))) or 0.1
        drums *= np.float32(level * 10 ** (rng.uniform(-5, 1) / 20) / loudness(drums))
        take.stems["drums"] = on_stage(drums, "drums", rng)
        take.made_of |= {"kit": kit.name, "kit_licence": kit.licence}
    if not take.stems:
        raise CorpusError("nothing sounds")
    if voice is not None:
        band = loudness(np.sum(list(take.stems.values()), axis=0))
        take.stems["vocals"] = voice * np.float32(band * 10 ** (rng.uniform(-4, 2) / 20) / (loudness(voice) + 1e-9))
        take.made_of |= sung_by
    even(take.stems)
    return take


def _vary(events: list[tuple[float, bytes]], semitones: int, rng: np.random.Generator) -> list[tuple[float, bytes]]:
    """The messages in another key, and with other programs of the same families, as far as these are alike."""
    moved = {family: int(rng.integers(8)) if rng.random() < 0.6 else 0 for family in _FAMILIES}
    found: list[tuple[float, bytes]] = []
    # A channel without a program of its own plays the first piano, whose neighbours may stand for it too.
    events = [*((0.0, bytes([0xC0 | channel, 0])) for channel in range(16) if channel != DRUM_CHANNEL), *events]
    for at, message in events:
        kind, channel = message[0] & 0xF0, message[0] & 0x0F
        if channel != DRUM_CHANNEL and kind in (0x80, 0x90, 0xA0):
            pitch = message[1] + semitones
            if not 0 <= pitch < 128:
                continue
            message = bytes([message[0], pitch]) + message[2:]
        elif channel != DRUM_CHANNEL and kind == 0xC0:
            family, number = divmod(message[1] & 0x7F, 8)
            message = bytes([message[0], 8 * family + (number + moved.get(family, 0)) % 8])
        found.append((at, message))
    return found


def _excerpt(events: list[tuple[float, bytes]], start_s: float, seconds: float) -> list[tuple[float, bytes]]:
    """What sounds from start_s on; programs and controllers from before are set at the beginning."""
    found = []
    for at, message in events:
        is_note = message[0] & 0xE0 == 0x80
        if at < start_s + seconds and not (is_note and at < start_s):
            found.append((max(at - start_s, 0.0), message))
    return found


def _channels(notes: list[Note], silent: set[int]) -> dict[str, set[int]]:
    """Stem to the channels that play it, drums left out: each channel by the family of most of its notes."""
    found: dict[str, set[int]] = {}
    for channel in sorted({note.channel for note in notes} - silent - {DRUM_CHANNEL}):
        families = [note.program // 8 for note in notes if note.channel == channel]
        family = max(sorted(set(families)), key=families.count)
        found.setdefault(_STEM_OF_FAMILY.get(family, "other"), set()).add(channel)
    return {stem: found[stem] for stem in _STEMS if stem in found}


def _play(events: list[tuple[float, bytes]], channels: set[int], bank: Path, seconds: float) -> np.ndarray:
    """Some channels of a song as a sound bank plays them, (2, T) float32 of `seconds`, ended by a short fade."""
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / "part.mid"
        write_midi([(at, message) for at, message in events if message[0] & 0x0F in channels], midi)
        played = play_midi(midi, bank, seconds).T.astype(np.float32) / np.float32(32768)
    out = np.zeros((2, int(seconds * SAMPLE_RATE)), np.float32)
    size = min(played.shape[1], out.shape[1])
    out[:, :size] = played[:, :size]
    fade = min(SAMPLE_RATE // 10, out.shape[1])
    out[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return out


def _voice(
    cast: Cast, line: list[Note], length: int, rng: np.random.Generator
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The melody (2, length) sung by one of the voices, and which; None where there is no melody or no singer."""
    if not line or not cast.voices:
        return None, {}
    voice = cast.voices[rng.integers(len(cast.voices))]
    chosen = rng.permutation(len(voice.parts))[: 2 * CLIPS_PER_TRACK]
    clips = [read_stereo(voice.parts[number]).mean(axis=0) for number in chosen]
    try:
        sung = sing_melody(clips, line, length, rng, float(rng.uniform(0.85, 1.18)))
    except CorpusError:
        return None, {}
    return sung, {"voice": voice.name, "voice_licence": voice.licence}


def _write(folder: Path, take: Take, about: dict[str, Any]) -> None:
    """A take's folder, under another name until it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(exist_ok=True)
        for stem, sound in take.stems.items():
            sf.write(str(part / f"{stem}.flac"), sound.T, SAMPLE_RATE, subtype="PCM_16")
        text = {**about, "stems": list(take.stems), "made_of": take.made_of}
        (part / "take.json").write_text(json.dumps(text, indent=1))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def take_sources() -> list[Source]:
    """The takes in the cache as sources: bands of kind "rendered", and the voices that sing with them."""
    return [source for folder in _take_folders() for source in _sources(folder)]


def take_songs() -> list[Song]:
    """The takes in the cache as songs, with each of their stems."""
    found = []
    for folder in _take_folders():
        about = _about(folder)
        if about["stems"]:
            licence = ", ".join(dict.fromkeys(v for key, v in about["made_of"].items() if key.endswith("_licence")))
            stems = tuple((stem, folder / f"{stem}.flac") for stem in about["stems"])
            found.append(Song(folder.name, f"takes-{about['origin']}", about["split"], licence, stems))
    return found


def made_of(source: Source) -> dict[str, Any]:
    """What a take was made of, with licences; empty for all other sources."""
    note = source.parts[0].with_name("take.json")
    return dict(json.loads(note.read_text())["made_of"]) if note.exists() else {}


def _take_folders() -> list[Path]:
    if not takes_folder().is_dir() or not all(is_fetched(package) for package in SCORE_PACKAGES):
        return []
    return [takes_folder() / name for score in scores() for name in take_names(score)]


def _about(folder: Path) -> dict[str, Any]:
    note = folder / "take.json"
    return dict(json.loads(note.read_text())) if note.exists() else {"stems": []}


def _sources(folder: Path) -> list[Source]:
    about = _about(folder)
    band = [stem for stem in about["stems"] if stem != "vocals"]
    found = []
    for role, origin, kind, stems, licences in (
        ("accompaniment", "takes", "rendered", band, ("score_licence", "bank_licence", "kit_licence")),
        ("vocals", "sung-takes", "singing", ["vocals"], ("score_licence", "voice_licence")),
    ):
        if set(stems) & set(about["stems"]):
            licence = ", ".join(dict.fromkeys(about["made_of"][key] for key in licences if key in about["made_of"]))
            name, files = f"{origin}-{about['origin']}/{folder.name}", (folder / f"{stem}.flac" for stem in stems)
            found.append(Source(name, role, kind, folder.name, licence, about["split"], tuple(files), tuple(stems)))
    return found
