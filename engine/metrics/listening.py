"""Measures by well-known packages, which the extra [metrics] brings: a perceptual score made for separated audio, two
of speech, and BSSEval version 4.

Sound is (C, T) at the given sample rate. Each raises ModuleNotFoundError where its package is missing, and returns nan
where there is nothing to measure.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import soxr

SPEECH_RATE = 16000
PERCEPTUAL_RATE = 48000
SHORTEST_S = 0.5


def perceptual_score(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """What a listening test would give, 0 to 100: the 2f-model (Kastner and Herre, An efficient model for estimating
    subjective quality of separated audio source signals, 2019), by seabass-2f. More than two channels are heard as
    their mean. The first call of a process takes a minute, since the package is compiled then."""
    from seabass.core.models.mms import estimated_mean_mushra_score

    sounds = [
        np.ascontiguousarray(_resampled(_stereo(audio), sample_rate, PERCEPTUAL_RATE), np.float64)
        for audio in (estimate, reference)
    ]
    try:
        return float(estimated_mean_mushra_score(*sounds))
    except ValueError:  # what it raises for silence
        return float("nan")


def pesq_score(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Wide-band PESQ of the channels' mean, 1 to 4.6 (ITU-T P.862.2), by the package pesq. Made for speech."""
    import pesq

    x, s = _speech(estimate, reference, sample_rate)
    try:
        return float(pesq.pesq(SPEECH_RATE, s, x, "wb"))
    except pesq.PesqError:  # silence, or shorter than a quarter of a second
        return float("nan")


def stoi_score(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility of the channels' mean, 0 to 1 (Taal et al., 2011), by pystoi. Made for
    speech."""
    from pystoi import stoi

    x, s = _speech(estimate, reference, sample_rate)
    if not s.any() or len(s) < SHORTEST_S * SPEECH_RATE:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(s, x, SPEECH_RATE))
        except RuntimeWarning:  # less than 30 frames that sound
            return float("nan")


def bss_eval(estimate: np.ndarray, reference: np.ndarray, mix: np.ndarray | None = None) -> dict[str, float]:
    """SDR, ISR, SAR in dB, and with the song SIR, by BSSEval version 4 (Stoter, Liutkus and Ito, The 2018 signal
    separation evaluation campaign, 2018), by museval, the whole sound as one window. Empty where a part of
    it is silent."""
    pairs = [(reference, estimate)] if mix is None else [(reference, estimate), (mix - reference, mix - estimate)]
    if any(not sound.any() for pair in pairs for sound in pair):
        return {}
    truths, guesses = (np.stack([pair[i].T for pair in pairs]).astype(np.float64) for i in range(2))
    names = ("SDR", "ISR", "SIR", "SAR")
    found = _museval_metrics().bss_eval(truths, guesses, window=np.inf, hop=np.inf)[:4]
    return {
        name: float(values[0, 0]) for name, values in zip(names, found, strict=True) if name != "SIR" or mix is not None
    }


@cache
def _museval_metrics() -> ModuleType:
    """museval's measures by themselves: the whole package asks for ffmpeg, to read files that we do not have."""
    package = importlib.util.find_spec("museval")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'museval'", name="museval")
    spec = importlib.util.spec_from_file_location("museval_metrics", Path(package.origin).with_name("metrics.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stereo(audio: np.ndarray) -> np.ndarray:
    return audio if len(audio) <= 2 else audio.mean(axis=0, keepdims=True)


def _speech(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    return [
        _resampled(audio.mean(axis=0, keepdims=True), sample_rate, SPEECH_RATE)[0].astype(np.float64)
        for audio in (estimate, reference)
    ]


def _resampled(audio: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    return np.asarray(soxr.resample(audio.T, rate_in, rate_out)).T
