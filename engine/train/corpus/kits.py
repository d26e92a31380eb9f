"""Recorded drum kits of the Hydrogen drum machine (drumkit.xml and its samples), played by General MIDI's drum notes.

Which instrument answers to which note is told by the instruments' names, since the kits' own numbers are in any order.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .sources import SAMPLE_RATE, CorpusError, audio_length, read_stereo

_LONGEST_S = 8.0
_CHOKE_S = 0.03
_TOM = "tom"
#: What an instrument is, by the first of these that its name (lower case, words apart) matches.
_NAMES = (
    ("snare", r"snare.*rim ?shot|rim ?shot.*snare|snare.*stick.*off"),
    ("pedal hat", r"(ped|foot|chick).*(hat|hh)|(hat|hh).*(ped|foot|chick)|\bhhp\b|\bphh?\b"),
    ("open hat", r"open.*(hat|hh)|(hat|hh|hi h).*(open|\bop)|\bohh?\b|\bhho\b|semi open"),
    ("closed hat", r"hat|\bhh|\bchh?\b|charleston"),
    ("ride bell", r"ride.*(bell|cup)|(bell|cup).*ride"),
    ("cowbell", r"cow|\bcb\b|agogo"),
    ("ride", r"\brid"),
    ("splash", r"splash"),
    ("china", r"\bchin"),
    ("crash", r"crash|cymb|\bcym"),
    ("kick", r"kick|\bkik|bass ?drum|\bbd|\bbass\b|\bbasedrum"),
    ("rim", r"\brim|side ?st|stick|cross"),
    ("clap", r"clap"),
    ("snare", r"snare|\bsd|\bsn[rd]?\b"),
    (_TOM, r"\btom|tom\b|floor|\b[lmh]t\b"),
    ("tambourine", r"tamb"),
    ("shaker", r"shak|marac|cabas|egg\b|afuche"),
    ("conga", r"cong|bong|djemb|tumba|quinto|darbu|udu"),
    ("clave", r"clav|wood ?bl|castan"),
    ("triangle", r"triang"),
)
_NO_SINGLE_HIT = r"\broll|\bloop|\bflam"
#: General MIDI's drum notes; toms from the lowest to the highest.
_TOMS = (41, 43, 45, 47, 48, 50)
NOTES = {
    35: "kick", 36: "kick", 37: "rim", 38: "snare", 39: "clap", 40: "snare", 42: "closed hat", 44: "pedal hat",
    46: "open hat", 49: "crash", 51: "ride", 52: "china", 53: "ride bell", 54: "tambourine", 55: "splash",
    56: "cowbell", 57: "crash", 59: "ride", 60: "conga", 61: "conga", 62: "conga", 63: "conga", 64: "conga", 65: "tom",
    66: "tom", 67: "cowbell", 68: "cowbell", 69: "shaker", 70: "shaker", 75: "clave", 76: "clave", 77: "clave",
    80: "triangle", 81: "triangle", 82: "shaker", **dict.fromkeys(_TOMS, _TOM),
}  # fmt: skip
#: What answers for an instrument that a kit does not have; nothing at the chain's end.
_INSTEAD = {
    "pedal hat": "closed hat", "open hat": "closed hat", "ride bell": "ride", "ride": "crash", "splash": "crash",
    "china": "crash", "crash": "ride", "rim": "snare", "clap": "snare", "tambourine": "shaker", "shaker": "closed hat",
    "conga": _TOM, "cowbell": "ride bell", "clave": "rim", "triangle": "ride bell",
}  # fmt: skip
_NEEDED = ("kick", "snare", "closed hat")
_HATS = ("closed hat", "pedal hat", "open hat")


@dataclass(frozen=True)
class Layer:
    """A sample, and the velocities (0 to 1) for which it is played. semitones: by how much it is tuned."""

    path: Path
    low: float
    high: float
    gain: float
    semitones: float


@dataclass(frozen=True)
class Piece:
    """An instrument of a kit. left, right: gains of the channels, the instrument's level in them."""

    name: str
    kind: str
    left: float
    right: float
    layers: tuple[Layer, ...]

    def layer(self, velocity: float, rng: np.random.Generator) -> Layer:
        """The sample for a velocity, 0 to 1; where several fit, one of them by chance."""
        fit = [layer for layer in self.layers if layer.low <= velocity <= layer.high]
        if not fit:
            near = min(self.layers, key=lambda layer: min(abs(velocity - layer.low), abs(velocity - layer.high)))
            return near
        return fit[rng.integers(len(fit))]


@dataclass(frozen=True)
class Kit:
    """A drum kit: its pieces that have a place in General MIDI, and the licence that its file states."""

    name: str
    licence: str
    pieces: tuple[Piece, ...]

    @property
    def complete(self) -> bool:
        """Whether it can play a song: it has kick, snare and hi-hat."""
        return {piece.kind for piece in self.pieces}.issuperset(_NEEDED)

    def choose(self, rng: np.random.Generator) -> dict[int, Piece]:
        """A piece for each drum note that the kit can answer; of several of one kind, one by chance."""
        of: dict[str, list[Piece]] = {}
        for piece in self.pieces:
            of.setdefault(piece.kind, []).append(piece)
        chosen = {kind: pieces[rng.integers(len(pieces))] for kind, pieces in sorted(of.items())}
        toms = sorted(of.get(_TOM, []), key=_height)
        found = {}
        for note, kind in NOTES.items():
            tried: set[str] = set()
            while kind not in chosen and kind in _INSTEAD and kind not in tried:
                tried.add(kind)
                kind = _INSTEAD[kind]
            if note in _TOMS and toms:
                found[note] = toms[_TOMS.index(note) * len(toms) // len(_TOMS)]
            elif kind in chosen:
                found[note] = chosen[kind]
        return found


@dataclass(frozen=True)
class Hit:
    """A drum note: second, General MIDI number, velocity of 0 to 1."""

    at_s: float
    note: int
    velocity: float


def kind_of(name: str) -> str | None:
    """Which of General MIDI's drums an instrument is, by its name; None where that cannot be told."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    text = re.sub(r"[\W_]+|(?<=[a-zA-Z])(?=\d)", " ", text).lower().strip()
    if re.search(_NO_SINGLE_HIT, text):
        return None
    return next((kind for kind, pattern in _NAMES if re.search(pattern, text)), None)


def _height(piece: Piece) -> tuple[float, float]:
    """Toms from low to high, as far as names tell: `floor` below `low`, and the first tom above the second."""
    text = piece.name.lower()
    words = enumerate((r"floor|lowest|very low", r"lo", r"mid|med", r"hi"))
    height = next((height for height, word in words if re.search(word, text)), 2)
    number = re.search(r"\d+", text)
    return height, -float(number.group()) if number else 0.0


def read_kit(xml: Path) -> Kit:
    """A kit from its drumkit.xml. Raises CorpusError where the file is none, or no piece of it has a sample."""
    try:
        root = ElementTree.parse(xml).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise CorpusError(f"{xml} cannot be read as a drum kit: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    pieces = []
    for instrument in root.iter("instrument"):
        piece = _piece(xml.parent, instrument)
        if piece is not None:
            pieces.append(piece)
    if not pieces:
        raise CorpusError(f"{xml}: no instrument has both a name that is known and a sample that is there")
    licence = " ".join((root.findtext("license") or "").split())
    return Kit(" ".join((root.findtext("name") or xml.parent.name).split()), licence or "not stated", tuple(pieces))


def _piece(folder: Path, instrument: ElementTree.Element) -> Piece | None:
    name = (instrument.findtext("name") or "").strip()
    kind = kind_of(name)
    home = instrument.find("instrumentComponent")
    layers = []
    for layer in (instrument if home is None else home).findall("layer"):
        path = folder / (layer.findtext("filename") or "").strip()
        if path.is_file():
            low, high, gain, tune = (_value(layer, *pair) for pair in _LAYER_FIELDS)
            layers.append(Layer(path, low, high, gain, tune))
    single = folder / (instrument.findtext("filename") or "").strip()
    if not layers and single.is_file():
        layers.append(Layer(single, 0.0, 1.0, 1.0, 0.0))
    if kind is None or not layers:
        return None
    level = _value(instrument, "volume", 1.0) * _value(instrument, "gain", 1.0)
    pan = _value(instrument, "pan", 0.0)  # -1 to 1 in newer kits; older ones give both channels' levels
    left, right = _value(instrument, "pan_L", min(1.0, 1 - pan)), _value(instrument, "pan_R", min(1.0, 1 + pan))
    return Piece(name, kind, level * left, level * right, tuple(layers))


_LAYER_FIELDS = (("min", 0.0), ("max", 1.0), ("gain", 1.0), ("pitch", 0.0))


def _value(element: ElementTree.Element, key: str, default: float) -> float:
    try:
        return float(element.findtext(key) or default)
    except ValueError:
        return default


@lru_cache(maxsize=64)
def _sample(path: Path, semitones: float) -> np.ndarray:
    """A sample (2, T) at 44.1 kHz, of some seconds at most, tuned; read-only. An unreadable one is empty."""
    try:
        sound = read_stereo(path, 0, min(audio_length(path), int(_LONGEST_S * SAMPLE_RATE)))
    except CorpusError:
        return np.zeros((2, 0), np.float32)
    if semitones and sound.shape[1]:
        sound = _tuned(sound, semitones)
    sound.flags.writeable = False
    return sound


def _tuned(sound: np.ndarray, semitones: float) -> np.ndarray:
    """(2, T) played faster or slower, as a sampler does."""
    places = np.arange(0, sound.shape[1] - 1, 2 ** (semitones / 12))
    below = places.astype(int)
    part = (places - below).astype(np.float32)
    return sound[:, below] * (1 - part) + sound[:, below + 1] * part


def play(kit: Kit, hits: list[Hit], length: int, rng: np.random.Generator) -> np.ndarray:
    """The hits played on a kit: (2, length) float32, with a player's small differences in time and force.

    A hi-hat ends the one before. Notes that the kit cannot answer are left out.
    """
    pieces = kit.choose(rng)
    out = np.zeros((2, length), np.float32)
    ringing: tuple[int, np.ndarray] | None = None
    tight_s, even = float(rng.uniform(0.0, 0.006)), float(rng.uniform(0.02, 0.1))
    for hit in sorted(hits, key=lambda hit: hit.at_s):
        piece = pieces.get(hit.note)
        at = max(int((hit.at_s + float(rng.normal(0, tight_s))) * SAMPLE_RATE), 0)
        velocity = float(np.clip(hit.velocity * (1 + rng.normal(0, even)), 0.02, 1.0))
        if piece is None or at >= length:
            continue
        layer = piece.layer(velocity, rng)
        gains = np.array([[piece.left], [piece.right]], np.float32) * np.float32(layer.gain * velocity)
        sound = (_sample(layer.path, layer.semitones) * gains)[:, : length - at]
        if piece.kind in _HATS:
            if ringing is not None:
                _choke(out, ringing, at)
            ringing = (at, sound)
        out[:, at : at + sound.shape[1]] += sound
    return out


def _choke(out: np.ndarray, ringing: tuple[int, np.ndarray], at: int) -> None:
    """Takes out of the sum what a sound that began earlier would still ring from `at` on, with a short fade."""
    began, sound = ringing
    rest = sound[:, max(at - began, 0) :]
    fade = np.clip(np.arange(rest.shape[1], dtype=np.float32) / (_CHOKE_S * SAMPLE_RATE), 0, 1)
    start = max(at, began)
    out[:, start : start + rest.shape[1]] -= rest * fade
