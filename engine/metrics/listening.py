"""Measures from other packages (extra [metrics]): a perceptual score for separated audio, PESQ, STOI and BSSEval v4.

Audio is (C, T) at the given sample rate. Every function raises ModuleNotFoundError if its package is missing, and
returns nan if there is nothing to measure.
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
    """Estimated score in a listening test (MUSHRA), 0 to 100, by the 2f-model (Kastner and Herre, An efficient model
    for estimating subjective quality of separated audio source signals, 2019) of the package seabass-2f. More than two
    channels are downmixed to mono. The first call in a process takes a minute, because the package is compiled then."""
    from seabass.core.models.mms import estimated_mean_mushra_score

    signals = [
        np.ascontiguousarray(_resampled(_stereo(audio), sample_rate, PERCEPTUAL_RATE), np.float64)
        for audio in (estimate, reference)
    ]
    try:
        return float(estimated_mean_mushra_score(*signals))
    except ValueError:  # raised for silence
        return float("nan")


def pesq_score(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Wide-band PESQ of the mono downmix, 1 to 4.6 (ITU-T P.862.2), by the package pesq. Made for speech."""
    import pesq

    x, s = _speech(estimate, reference, sample_rate)
    try:
        return float(pesq.pesq(SPEECH_RATE, s, x, "wb"))
    except pesq.PesqError:  # silence, or shorter than a quarter of a second
        return float("nan")


def stoi_score(estimate: np.ndarray, reference: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility of the mono downmix, 0 to 1 (Taal et al., 2011), by pystoi. Made for
    speech."""
    from pystoi import stoi

    x, s = _speech(estimate, reference, sample_rate)
    if not s.any() or len(s) < SHORTEST_S * SPEECH_RATE:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(s, x, SPEECH_RATE))
        except RuntimeWarning:  # fewer than 30 frames are not silent
            return float("nan")


def bss_eval(estimate: np.ndarray, reference: np.ndarray, mix: np.ndarray | None = None) -> dict[str, float]:
    """SDR, ISR and SAR in dB, and SIR with the mix: BSSEval v4 (Stoter, Liutkus and Ito, The 2018 signal separation
    evaluation campaign, 2018) by museval, over one window. Empty if any of the signals is silent."""
    pairs = [(reference, estimate)] if mix is None else [(reference, estimate), (mix - reference, mix - estimate)]
    if any(not signal.any() for pair in pairs for signal in pair):
        return {}
    references, estimates = (np.stack([pair[i].T for pair in pairs]).astype(np.float64) for i in range(2))
    names = ("SDR", "ISR", "SIR", "SAR")
    ratios = _museval_metrics().bss_eval(references, estimates, window=np.inf, hop=np.inf)[:4]
    return {
        name: float(values[0, 0])
        for name, values in zip(names, ratios, strict=True)
        if name != "SIR" or mix is not None
    }


@cache
def _museval_metrics() -> ModuleType:
    """The module museval.metrics by itself: importing the whole package needs ffmpeg, which is not used here."""
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
