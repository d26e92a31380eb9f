"""Plays drum kits of the Hydrogen drum machine (drumkit.xml and its samples) from General MIDI drum notes.

Instruments are matched to notes by their names, because the kits number them in any order.
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
#: Kinds of instruments and the patterns of their names (lower case, separate words). The first match counts.
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
_NOT_ONE_HIT = r"\broll|\bloop|\bflam"
#: General MIDI's tom notes, from low to high.
_TOMS = (41, 43, 45, 47, 48, 50)
#: General MIDI's drum notes.
NOTES = {
    35: "kick", 36: "kick", 37: "rim", 38: "snare", 39: "clap", 40: "snare", 42: "closed hat", 44: "pedal hat",
    46: "open hat", 49: "crash", 51: "ride", 52: "china", 53: "ride bell", 54: "tambourine", 55: "splash",
    56: "cowbell", 57: "crash", 59: "ride", 60: "conga", 61: "conga", 62: "conga", 63: "conga", 64: "conga", 65: "tom",
    66: "tom", 67: "cowbell", 68: "cowbell", 69: "shaker", 70: "shaker", 75: "clave", 76: "clave", 77: "clave",
    80: "triangle", 81: "triangle", 82: "shaker", **dict.fromkeys(_TOMS, _TOM),
}  # fmt: skip
#: What replaces an instrument that a kit lacks, step by step, until the kit has one or none is left.
_SUBSTITUTES = {
    "pedal hat": "closed hat", "open hat": "closed hat", "ride bell": "ride", "ride": "crash", "splash": "crash",
    "china": "crash", "crash": "ride", "rim": "snare", "clap": "snare", "tambourine": "shaker", "shaker": "closed hat",
    "conga": _TOM, "cowbell": "ride bell", "clave": "rim", "triangle": "ride bell",
}  # fmt: skip
_REQUIRED = ("kick", "snare", "closed hat")
_HATS = ("closed hat", "pedal hat", "open hat")


@dataclass(frozen=True)
class Layer:
    """A sample and its velocity range (0 to 1). semitones: how far it is transposed."""

    path: Path
    low: float
    high: float
    gain: float
    semitones: float


@dataclass(frozen=True)
class KitPiece:
    """An instrument of a kit. left, right: channel gains, including the instrument's level."""

    name: str
    kind: str
    left: float
    right: float
    layers: tuple[Layer, ...]

    def layer(self, velocity: float, rng: np.random.Generator) -> Layer:
        """The sample for a velocity, 0 to 1: a random one of those whose range fits, else the nearest."""
        fit = [layer for layer in self.layers if layer.low <= velocity <= layer.high]
        if not fit:
            return min(self.layers, key=lambda layer: min(abs(velocity - layer.low), abs(velocity - layer.high)))
        return fit[rng.integers(len(fit))]


@dataclass(frozen=True)
class Kit:
    """A drum kit: the instruments that General MIDI knows, and the licence stated in its file."""

    name: str
    licence: str
    pieces: tuple[KitPiece, ...]

    @property
    def complete(self) -> bool:
        """Whether it has kick, snare and hi-hat, and so can play a song."""
        return {piece.kind for piece in self.pieces}.issuperset(_REQUIRED)

    def choose(self, rng: np.random.Generator) -> dict[int, KitPiece]:
        """An instrument for each drum note that the kit can play, chosen at random among those of a kind."""
        by_kind: dict[str, list[KitPiece]] = {}
        for piece in self.pieces:
            by_kind.setdefault(piece.kind, []).append(piece)
        chosen = {kind: pieces[rng.integers(len(pieces))] for kind, pieces in sorted(by_kind.items())}
        toms = sorted(by_kind.get(_TOM, []), key=_tom_order)
        found = {}
        for note, kind in NOTES.items():
            tried: set[str] = set()
            while kind not in chosen and kind in _SUBSTITUTES and kind not in tried:
                tried.add(kind)
                kind = _SUBSTITUTES[kind]
            if note in _TOMS and toms:
                found[note] = toms[_TOMS.index(note) * len(toms) // len(_TOMS)]
            elif kind in chosen:
                found[note] = chosen[kind]
        return found


@dataclass(frozen=True)
class Hit:
    """A drum note: time in seconds, General MIDI number, velocity from 0 to 1."""

    at_s: float
    note: int
    velocity: float


def kind_of(name: str) -> str | None:
    """Which of General MIDI's drums an instrument is, judging by its name. None if unknown."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    text = re.sub(r"[\W_]+|(?<=[a-zA-Z])(?=\d)", " ", text).lower().strip()
    if re.search(_NOT_ONE_HIT, text):
        return None
    return next((kind for kind, pattern in _NAMES if re.search(pattern, text)), None)


def _tom_order(piece: KitPiece) -> tuple[float, float]:
    """Sort key for toms, low to high, judging by their names: `floor` is below `low`, and tom 1 above tom 2."""
    text = piece.name.lower()
    words = enumerate((r"floor|lowest|very low", r"lo", r"mid|med", r"hi"))
    height = next((height for height, word in words if re.search(word, text)), 2)
    number = re.search(r"\d+", text)
    return height, -float(number.group()) if number else 0.0


def read_kit(xml: Path) -> Kit:
    """Read a kit from its drumkit.xml. Raises CorpusError if it is malformed or has no usable instrument."""
    try:
        root = ElementTree.parse(xml).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise CorpusError(f"{xml} cannot be read as a drum kit: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    found = [_read_piece(xml.parent, instrument) for instrument in root.iter("instrument")]
    pieces = [piece for piece in found if piece is not None]
    if not pieces:
        raise CorpusError(f"{xml} has no instrument with a known name and an existing sample")
    licence = " ".join((root.findtext("license") or "").split())
    return Kit(" ".join((root.findtext("name") or xml.parent.name).split()), licence or "not stated", tuple(pieces))


def _read_piece(folder: Path, instrument: ElementTree.Element) -> KitPiece | None:
    """An instrument of a kit, or None if its kind is unknown or all its samples are missing."""
    name = (instrument.findtext("name") or "").strip()
    kind = kind_of(name)
    component = instrument.find("instrumentComponent")
    layers = []
    for layer in (instrument if component is None else component).findall("layer"):
        path = folder / (layer.findtext("filename") or "").strip()
        if path.is_file():
            low, high = _number(layer, "min", 0.0), _number(layer, "max", 1.0)
            layers.append(Layer(path, low, high, _number(layer, "gain", 1.0), _number(layer, "pitch", 0.0)))
    single = folder / (instrument.findtext("filename") or "").strip()
    if not layers and single.is_file():
        layers.append(Layer(single, 0.0, 1.0, 1.0, 0.0))
    if kind is None or not layers:
        return None
    level = _number(instrument, "volume", 1.0) * _number(instrument, "gain", 1.0)
    pan = _number(instrument, "pan", 0.0)  # -1 to 1 in newer kits; older ones have a level for each channel
    left, right = _number(instrument, "pan_L", min(1.0, 1 - pan)), _number(instrument, "pan_R", min(1.0, 1 + pan))
    return KitPiece(name, kind, level * left, level * right, tuple(layers))


def _number(element: ElementTree.Element, key: str, default: float) -> float:
    try:
        return float(element.findtext(key) or default)
    except ValueError:
        return default


@lru_cache(maxsize=64)
def _sample(path: Path, semitones: float) -> np.ndarray:
    """The first seconds of a sample (2, T) at 44.1 kHz, transposed; read-only. Empty if it cannot be read."""
    try:
        audio = read_stereo(path, 0, min(audio_length(path), int(_LONGEST_S * SAMPLE_RATE)))
    except CorpusError:
        return np.zeros((2, 0), np.float32)
    if semitones and audio.shape[1]:
        places = np.arange(0, audio.shape[1] - 1, 2 ** (semitones / 12))  # faster or slower, as a sampler does it
        below = places.astype(int)
        part = (places - below).astype(np.float32)
        audio = audio[:, below] * (1 - part) + audio[:, below + 1] * part
    audio.flags.writeable = False
    return audio


def play(kit: Kit, hits: list[Hit], length: int, rng: np.random.Generator) -> np.ndarray:
    """Play the hits on a kit, with a drummer's small variations of timing and velocity: (2, length) float32.

    A hi-hat stops the one before it. Notes that the kit cannot play are skipped.
    """
    pieces = kit.choose(rng)
    out = np.zeros((2, length), np.float32)
    ringing: tuple[int, np.ndarray] | None = None
    jitter_s, unevenness = float(rng.uniform(0.0, 0.006)), float(rng.uniform(0.02, 0.1))
    for hit in sorted(hits, key=lambda hit: hit.at_s):
        piece = pieces.get(hit.note)
        at = max(int((hit.at_s + float(rng.normal(0, jitter_s))) * SAMPLE_RATE), 0)
        velocity = float(np.clip(hit.velocity * (1 + rng.normal(0, unevenness)), 0.02, 1.0))
        if piece is None or at >= length:
            continue
        layer = piece.layer(velocity, rng)
        gains = np.array([[piece.left], [piece.right]], np.float32) * np.float32(layer.gain * velocity)
        audio = (_sample(layer.path, layer.semitones) * gains)[:, : length - at]
        if piece.kind in _HATS:
            if ringing is not None:
                _choke(out, ringing, at)
            ringing = (at, audio)
        out[:, at : at + audio.shape[1]] += audio
    return out


def _choke(out: np.ndarray, ringing: tuple[int, np.ndarray], at: int) -> None:
    """Remove from the sum, from `at` on and with a short fade, what is left of an earlier hit (start, audio)."""
    began, audio = ringing
    tail = audio[:, max(at - began, 0) :]
    fade = np.clip(np.arange(tail.shape[1], dtype=np.float32) / (_CHOKE_S * SAMPLE_RATE), 0, 1)
    start = max(at, began)
    out[:, start : start + tail.shape[1]] -= tail * fade
