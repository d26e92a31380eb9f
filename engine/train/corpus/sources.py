"""What the corpus is made of: a `Source` is one recording, or one voice, to draw audio from.

layouts.py makes sources of folders of true stems, packages.py of Debian packages, rendered_songs.py of MIDI songs,
singing.py of resynthesised singers; collect.py gathers them all.

Splits: "train"; "valid" (songs held out of a folder of stems); "valid-other" (held-out voices, composers, MIDI songs,
sound banks and drum kits); "test". Whatever is held out is held out whole: a song, a composer, a language, a sound bank
or a drum kit, never parts of one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from ...errors import InputError

SAMPLE_RATE = 44_100
SPLITS = ("train", "valid", "valid-other", "test")
ROLES = ("vocals", "accompaniment")
_LONG_S, _RESAMPLE_MARGIN = 30, 8192


class CorpusError(InputError):
    """A source is missing, unreadable or not in the form the corpus needs."""


@dataclass(frozen=True)
class Source:
    """One recording, or one voice, to draw audio from.

    name: unique, `<origin>/<what>`. role: one of ROLES. split: one of SPLITS.
    kind:
        "song": stems of a song; `group` names the song, and the parts are in sync.
        "rendered": the band of a song rendered from MIDI (rendered_songs.py); parts as for "song".
        "music": a full recording with no vocals to go with it.
        "voice": many short clips by one speaker.
        "singing": a long resynthesised vocal (singing.py). If it sings the melody of a rendered song, it has that
            song's `group`; otherwise no band goes with it.
    parts: files that are in sync and summed ("song", "rendered"), one file ("music", "singing"), or clips ("voice").
    labels: the stem that each part is ("drums"). If empty, the file names are used.
    origin: the collection it comes from. If empty, the part of the name before the slash.
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
            raise CorpusError(
                f"source {self.name} is malformed: role={self.role!r}, split={self.split!r}, {len(self.parts)} parts"
            )
        if self.labels and len(self.labels) != len(self.parts):
            raise CorpusError(f"source {self.name}: {len(self.labels)} labels for {len(self.parts)} parts")

    @property
    def stems(self) -> tuple[str, ...]:
        """The stem that each part is."""
        return self.labels or tuple(part.stem for part in self.parts)

    @property
    def collection(self) -> str:
        """The collection it comes from."""
        return self.origin or self.name.split("/")[0]

    @property
    def length_samples(self) -> int:
        """Length of the longest part (for a "voice", the longest clip) at 44.1 kHz."""
        return max(audio_length(part) for part in self.parts)

    @property
    def duration_s(self) -> float:
        """Seconds of audio: the sum of a voice's clips; the length of anything else."""
        if self.kind == "voice":
            return sum(audio_length(part) for part in self.parts) / SAMPLE_RATE
        return self.length_samples / SAMPLE_RATE

    def read(self, start: int, length: int, parts: tuple[Path, ...] | None = None) -> np.ndarray:
        """Samples [start, start + length) at 44.1 kHz, summed over all parts or the given ones: (2, length) float32.

        Outside the recording there is silence.
        """
        out = np.zeros((2, length), np.float32)
        for part in self.parts if parts is None else parts:
            out += read_stereo(part, start, length)
        return out


def cache_dir() -> Path:
    """The cache folder: $STEMPROVER_CACHE, else $XDG_CACHE_HOME/stemprover, else ~/.cache/stemprover."""
    folder = os.environ.get("STEMPROVER_CACHE")
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stemprover"


def default_stems_folder() -> Path | None:
    """The folder in the environment variable STEMPROVER_STEMS, or None if it is not set."""
    folder = os.environ.get("STEMPROVER_STEMS")
    return Path(folder) if folder else None


def _info(path: Path) -> tuple[int, int]:
    """(sample rate, frames) of a file."""
    try:
        found = path.stat()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    return _cached_info(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _cached_info(path: Path, size: int, changed_ns: int) -> tuple[int, int]:
    """`_info`, as long as the file stays the same."""
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
    """Samples [start, start + length) of a file at 44.1 kHz: (2, length) float32. Mono is copied to both channels."""
    rate, frames = _info(path)
    length = audio_length(path) - start if length is None else length
    first, last, skip = start, start + length, 0
    if rate != SAMPLE_RATE:
        first, last, skip = 0, frames, start
        if frames > _LONG_S * rate:  # read only the asked-for part of a long file, and a margin
            whole = SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE)  # this many samples are a whole number of the file's
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
