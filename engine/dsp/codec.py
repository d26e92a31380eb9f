"""Audio to a file in memory and back, by libsndfile: what a lossy codec does to a sound."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr

from ..constants import MODEL_RATE


def encode(audio: np.ndarray, container: str, subtype: str, rate: int = MODEL_RATE, **settings: object) -> bytes:
    """Audio (C, T) at 44.1 kHz as a file that libsndfile writes at `rate`; what is above full scale is clipped."""
    sound = audio.T if rate == MODEL_RATE else soxr.resample(audio.T, MODEL_RATE, rate)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, len(audio), subtype, format=container, **settings) as out:
        out.write(np.clip(sound, -1.0, 1.0))
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The audio (C, T) float32 of a file at 44.1 kHz; codecs may make it longer."""
    found, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    back: np.ndarray = (found if rate == MODEL_RATE else soxr.resample(found, rate, MODEL_RATE)).T
    return back
