"""Songs rendered from MIDI as stems: drums by a sampled kit, the rest by a sound bank, the melody sung by a voice.

    <cache>/takes/v1/<name>/{drums,bass,guitar,piano,other,vocals}.flac, take.json

Each rendered song has its own programs (within their families), key, tempo, excerpt, balance, equaliser, saturation and
reverb, all decided by its name. Some songs, a sound bank, two kits and two voices are held out. A held-out song is
performed only by held-out kits, voices and the held-out bank, a training song only by the others.
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
from .mixing import active_rms, apply_channel_strip, normalise_peak
from .packages import BANKS, HELD_OUT_EVERY, VALID_BANK, bank_path, fetch_package, freedoom_midis, is_fetched
from .singing import ROBOTS
from .sources import SAMPLE_RATE, CorpusError, Source, cache_dir, read_stereo
from .words import CLIPS_PER_TRACK

VERSION = 1  # of the rendering: change it when that changes, because rendered songs are cached
#: In the cache. The names, like the sources' ("takes-freedoom/..."), stay as they are: new ones would orphan what is
#: cached and change what a seed draws.
_FOLDER, _DESCRIPTION = "takes", "take.json"
SCORE_PACKAGES = ("freedoom", "openttd-openmsx")
KIT_PACKAGE = "hydrogen-drumkits"
TRAIN_BANKS = ("fluid-soundfont-gm", "musescore-general-soundfont-lossless")
PACKAGES = (*SCORE_PACKAGES, KIT_PACKAGE, VALID_BANK, *TRAIN_BANKS)
#: Held-out kits: one recorded, one electronic, whose makers have no other kit in the package.
VALID_KITS = frozenset({"ColomboAcousticDrumkit", "Audiophob"})
#: Licences by the kits' folders, from the package's copyright file, because not every drumkit.xml states one.
_KIT_LICENCES = {
    **dict.fromkeys(("ElectricEmpireKit", "HardElectro1", "VariBreaks", "ColomboAcousticDrumkit"), "GPL-2+"),
    **dict.fromkeys(("Millo-Drums_v.1", "Millo_MultiLayered2", "Millo_MultiLayered3", "ForzeeStereo"), "GPL-2"),
    **dict.fromkeys(("Gimme A Hand 1.0", "The Black Pearl 1.0"), "GPL-2"),
    "BJA_Pacific": "CC-BY-SA-3.0-US", "circAfrique v4": "CC-BY-SA-3.0", "rumpf_kit_z01_h2": "CC-BY-3.0",
    "Audiophob": "CC0-1.0",
}  # fmt: skip
#: How many times a MIDI song is rendered, by its origin.
VERSIONS_PER_SCORE = {"freedoom": 1, "openttd": 3}
LENGTH_S = (75.0, 105.0)
_SHORTEST_S = 30.0
_SEMITONES = (-5, 6)
_TEMPO = (0.85, 1.2)
#: Family of eight programs: its stem. All other families are "other".
_STEM_OF_FAMILY = {0: "piano", 3: "guitar", 4: "bass"}
_STEMS = ("drums", "bass", "guitar", "piano", "other")
#: Families whose programs are similar enough to replace each other.
_VARIED_FAMILIES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
_BAND_LICENCES, _VOCAL_LICENCES = ("score_licence", "bank_licence", "kit_licence"), ("score_licence", "voice_licence")
_SILENT_RMS = 1e-3
_MAX_WORKERS = 4


@dataclass(frozen=True)
class Score:
    """A MIDI song. origin: "freedoom" or "openttd"."""

    path: Path
    origin: str
    licence: str
    held_out: bool


@dataclass(frozen=True)
class Performers:
    """Who may perform in a split: sound banks (name, file, licence), drum kits and voices."""

    banks: tuple[tuple[str, Path, str], ...]
    kits: tuple[Kit, ...]
    voices: tuple[Source, ...]


@dataclass
class RenderedSong:
    """Stems by name, (2, T) float32, and what the song was made of, ready for JSON."""

    stems: dict[str, np.ndarray] = field(default_factory=dict)
    made_of: dict[str, Any] = field(default_factory=dict)


def find_scores() -> list[Score]:
    """The MIDI songs of the packages, downloaded if needed."""
    found = [Score(path, "freedoom", "BSD-3-Clause", held_out) for path, held_out in freedoom_midis()]
    for number, path in enumerate(sorted(fetch_package("openttd-openmsx").rglob("*.mid"))):
        found.append(Score(path, "openttd", "GPL-2", number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1))
    return found


def find_kits(folder: Path) -> list[Kit]:
    """The kits in a folder that can play a song, sorted by name. Unreadable ones are skipped."""
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


def find_performers(voices: list[Source]) -> dict[bool, Performers]:
    """Who performs held-out songs (True) and training songs (False). Downloads banks and kits if needed."""
    kits = find_kits(fetch_package(KIT_PACKAGE))
    singers = [voice for voice in voices if voice.kind == "voice" and voice.name.split("/")[-1] not in ROBOTS]
    found = {}
    for held_out, packages in ((True, (VALID_BANK,)), (False, TRAIN_BANKS)):
        banks = tuple((package, bank_path(package), BANKS[package][1]) for package in packages)
        mine = tuple(kit for kit in kits if (kit.name in VALID_KITS) == held_out)
        split = "valid-other" if held_out else "train"
        found[held_out] = Performers(banks, mine, tuple(voice for voice in singers if voice.split == split))
        if not mine:
            raise CorpusError(f"{KIT_PACKAGE} has no drum kit for the split {split} that can play a song")
    return found


def version_names(score: Score) -> list[str]:
    """The names of a MIDI song's renderings, which are their folders' names and seeds."""
    return [f"{score.origin}-{score.path.stem}-{n}" for n in range(1, VERSIONS_PER_SCORE.get(score.origin, 1) + 1)]


def cache_folder() -> Path:
    """Where rendered songs are kept."""
    return cache_dir() / _FOLDER / f"v{VERSION}"


def render_songs(voices: list[Source], say: Callable[[str], None] = print, *, held_out_only: bool = False) -> None:
    """Render the songs missing in the cache, or only held-out ones. Without fluidsynth, report that and render none."""
    if not can_play():
        say("fluidsynth is not installed, so no songs are rendered from MIDI (apt-get install fluidsynth)")
        return
    scores = [score for score in find_scores() if score.held_out or not held_out_only]
    wanted = [(score, name) for score in scores for name in version_names(score)]
    missing = [(score, name) for score, name in wanted if not (cache_folder() / name / _DESCRIPTION).exists()]
    if not missing:
        return
    performers = find_performers(voices)

    def render(score: Score, name: str) -> str:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        about: dict[str, Any] = {"split": "valid-other" if score.held_out else "train", "origin": score.origin}
        try:
            song = render_song(score, performers[score.held_out], rng)
        except (CorpusError, ValueError) as error:
            song = RenderedSong()
            about["useless"] = str(error)
        _write(cache_folder() / name, song, about)
        return about.get("useless") or ", ".join(song.stems)

    # Most of the time goes to fluidsynth, a process of its own that needs one core and half a gigabyte.
    workers = ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, _MAX_WORKERS)))
    try:
        for number, ((_, name), what) in enumerate(
            zip(missing, workers.map(render, *zip(*missing, strict=True)), strict=True), 1
        ):
            say(f"rendered song {number} of {len(missing)}, {name}: {what}")
    finally:
        workers.shutdown(cancel_futures=True)


def render_song(score: Score, performers: Performers, rng: np.random.Generator) -> RenderedSong:
    """Render a MIDI song. Raises CorpusError if it is too short or silent, ValueError if it is not a MIDI file."""
    wanted_s, tempo = float(rng.uniform(*LENGTH_S)), float(rng.uniform(*_TEMPO))
    semitones = int(rng.integers(*_SEMITONES))
    events = [(at / tempo, message) for at, message in read_midi(score.path)]
    last_s = max((note.end_s for note in notes_of(events)), default=0.0)
    if last_s < _SHORTEST_S:
        raise CorpusError(f"{last_s:.0f} s are too short")
    start_s = float(rng.uniform(0, max(last_s - wanted_s, 0.0)))
    seconds = min(wanted_s, last_s - start_s + 1.0)
    events = _excerpt(_vary(events, semitones, rng), start_s, seconds)
    notes = [note for note in notes_of(events) if note.start_s < seconds]
    bank = performers.banks[rng.integers(len(performers.banks))]
    kit = performers.kits[rng.integers(len(performers.kits))]
    line = find_melody(notes, seconds)
    # If the melody's channel plays little else, the voice may replace it; otherwise the voice doubles it.
    alone = bool(line) and len(line) > 0.7 * sum(note.channel == line[0].channel for note in notes)
    instead = alone and bool(rng.random() < 0.7)
    song = RenderedSong(made_of={
        "score": f"{score.origin}/{score.path.stem}", "score_licence": score.licence, "bank": bank[0],
        "bank_licence": bank[2], "semitones": semitones, "tempo": round(tempo, 3), "start_s": round(start_s, 2),
    })  # fmt: skip
    length = int(seconds * SAMPLE_RATE)
    vocals, sung_by = _sing(performers, line, length, rng)
    muted = {line[0].channel} if vocals is not None and instead else set()
    for stem, channels in _channels_by_stem(notes, muted).items():
        audio = _play(events, channels, bank[1], seconds)
        if float(np.sqrt(np.mean(audio**2))) > _SILENT_RMS:
            song.stems[stem] = apply_channel_strip(audio, stem, rng)
    hits = [Hit(n.start_s, n.pitch, n.velocity / 127) for n in notes if n.channel == DRUM_CHANNEL]
    drums = play(kit, hits, length, rng)
    if float(np.sqrt(np.mean(drums**2))) > _SILENT_RMS:
        level = active_rms(sum(song.stems.values(), np.zeros((2, length), np.float32))) or 0.1
        drums *= np.float32(level * 10 ** (rng.uniform(-5, 1) / 20) / active_rms(drums))
        song.stems["drums"] = apply_channel_strip(drums, "drums", rng)
        song.made_of |= {"kit": kit.name, "kit_licence": kit.licence}
    if not song.stems:
        raise CorpusError("all stems are silent")
    if vocals is not None:
        level = active_rms(np.sum(list(song.stems.values()), axis=0))
        vocals *= np.float32(level * 10 ** (rng.uniform(-4, 2) / 20) / (active_rms(vocals) + 1e-9))
        song.stems["vocals"] = vocals
        song.made_of |= sung_by
    normalise_peak(song.stems)
    return song


def _vary(events: list[tuple[float, bytes]], semitones: int, rng: np.random.Generator) -> list[tuple[float, bytes]]:
    """The messages in another key, and with other programs of the same families where these are similar."""
    shift = {family: int(rng.integers(8)) if rng.random() < 0.6 else 0 for family in _VARIED_FAMILIES}
    found: list[tuple[float, bytes]] = []
    # A channel without a program change plays the first piano, which may be replaced too.
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
            message = bytes([message[0], 8 * family + (number + shift.get(family, 0)) % 8])
        found.append((at, message))
    return found


def _excerpt(events: list[tuple[float, bytes]], start_s: float, seconds: float) -> list[tuple[float, bytes]]:
    """The notes that start in an excerpt; earlier programs and controllers are set at its beginning."""
    found = []
    for at, message in events:
        is_note = message[0] & 0xE0 == 0x80
        if at < start_s + seconds and not (is_note and at < start_s):
            found.append((max(at - start_s, 0.0), message))
    return found


def _channels_by_stem(notes: list[Note], muted: set[int]) -> dict[str, set[int]]:
    """The channels of each stem but the drums, judging by the family of most of a channel's notes."""
    found: dict[str, set[int]] = {}
    for channel in sorted({note.channel for note in notes} - muted - {DRUM_CHANNEL}):
        families = [note.program // 8 for note in notes if note.channel == channel]
        family = max(sorted(set(families)), key=families.count)
        found.setdefault(_STEM_OF_FAMILY.get(family, "other"), set()).add(channel)
    return {stem: found[stem] for stem in _STEMS if stem in found}


def _play(events: list[tuple[float, bytes]], channels: set[int], bank: Path, seconds: float) -> np.ndarray:
    """Some channels of a song, played by a sound bank and faded out: (2, T) float32 of `seconds`."""
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


def _sing(
    performers: Performers, line: list[Note], length: int, rng: np.random.Generator
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """The melody sung by one of the voices (2, length), and by whom. None if there is no melody or no able singer."""
    if not line or not performers.voices:
        return None, {}
    voice = performers.voices[rng.integers(len(performers.voices))]
    chosen = rng.permutation(len(voice.parts))[: 2 * CLIPS_PER_TRACK]
    clips = [read_stereo(voice.parts[number]).mean(axis=0) for number in chosen]
    try:
        sung = sing_melody(clips, line, length, rng, float(rng.uniform(0.85, 1.18)))
    except CorpusError:
        return None, {}
    return sung, {"voice": voice.name, "voice_licence": voice.licence}


def _write(folder: Path, song: RenderedSong, about: dict[str, Any]) -> None:
    """Write a rendered song's folder, under a temporary name until it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(exist_ok=True)
        for stem, audio in song.stems.items():
            sf.write(str(part / f"{stem}.flac"), audio.T, SAMPLE_RATE, subtype="PCM_16")
        description = {**about, "stems": list(song.stems), "made_of": song.made_of}
        (part / _DESCRIPTION).write_text(json.dumps(description, indent=1))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def list_rendered_sources() -> list[Source]:
    """The rendered songs in the cache as sources: bands of the kind "rendered", and their vocals as "singing"."""
    found = []
    for folder, about in _cached():
        for role, prefix, kind, stems, licences in (
            ("accompaniment", "", "rendered", [stem for stem in about["stems"] if stem != "vocals"], _BAND_LICENCES),
            ("vocals", "sung-", "singing", [stem for stem in about["stems"] if stem == "vocals"], _VOCAL_LICENCES),
        ):
            if stems:
                licence = ", ".join(dict.fromkeys(about["made_of"][key] for key in licences if key in about["made_of"]))
                files = tuple(folder / f"{stem}.flac" for stem in stems)
                found.append(Source(
                    f"{prefix}{_FOLDER}-{about['origin']}/{folder.name}", role, kind, folder.name, licence,
                    about["split"], files, tuple(stems), origin=f"{prefix}rendered-{about['origin']}",
                ))  # fmt: skip
    return found


def list_rendered_songs() -> list[Song]:
    """The rendered songs in the cache, each with all its stems."""
    found = []
    for folder, about in _cached():
        licence = ", ".join(dict.fromkeys(v for key, v in about["made_of"].items() if key.endswith("_licence")))
        stems = tuple((stem, folder / f"{stem}.flac") for stem in about["stems"])
        found.append(Song(folder.name, f"rendered-{about['origin']}", about["split"], licence, stems))
    return found


def made_of(source: Source) -> dict[str, Any]:
    """What a rendered song was made of, with licences; empty for all other sources."""
    description = source.parts[0].with_name(_DESCRIPTION)
    return dict(json.loads(description.read_text())["made_of"]) if description.exists() else {}


def _cached() -> list[tuple[Path, dict[str, Any]]]:
    """The folders and descriptions of the rendered songs in the cache, without the failed ones."""
    if not cache_folder().is_dir() or not all(is_fetched(package) for package in SCORE_PACKAGES):
        return []
    folders = [cache_folder() / name for score in find_scores() for name in version_names(score)]
    found = [
        (folder, json.loads((folder / _DESCRIPTION).read_text()))
        for folder in folders
        if (folder / _DESCRIPTION).exists()
    ]
    return [(folder, about) for folder, about in found if about["stems"]]
