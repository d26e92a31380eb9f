"""All measures of a sound by name, with and without the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from . import listening, spectral
from .basic import log_spectral_distance, sdr, si_sdr


@dataclass(frozen=True)
class Measure:
    """A figure of a sound against the true one. better: "higher" or "lower"; function: of (sound, true sound, sample
    rate), nan where there is nothing to measure."""

    name: str
    unit: str
    better: str
    function: Callable[[np.ndarray, np.ndarray, int], float]


WITH_TRUTH = (
    Measure("SI-SDR", "dB", "higher", lambda x, s, _: si_sdr(x, s)),
    Measure("SDR", "dB", "higher", lambda x, s, _: sdr(x, s)),
    Measure("Log-spectral distance", "dB", "lower", lambda x, s, _: log_spectral_distance(x, s)),
    Measure("Multi-resolution STFT distance", "", "lower", lambda x, s, _: spectral.multi_resolution_distance(x, s)),
    Measure("Frequency response error", "dB", "lower", spectral.band_response_error_db),
    Measure("Phase agreement", "", "higher", lambda x, s, _: spectral.phase_agreement(x, s)),
    Measure("Phase agreement, worst band", "", "higher", spectral.worst_band_phase),
    Measure("Coherence between bands", "", "higher", spectral.band_coherence),
    Measure("Instantaneous frequency agreement", "", "higher", lambda x, s, _: spectral.frequency_agreement(x, s)),
    Measure("Group delay agreement", "", "higher", lambda x, s, _: spectral.delay_agreement(x, s)),
    Measure("Onset error", "", "lower", spectral.onset_error),
)
#: What is measured where the time is short.
BRIEF = WITH_TRUTH[:3]
#: What the extra [metrics] adds, by the name under which it is asked for.
SPEECH = (
    Measure("PESQ", "", "higher", listening.pesq_score),
    Measure("STOI", "", "higher", listening.stoi_score),
)
PERCEPTUAL = (Measure("Perceptual score (2f)", "", "higher", listening.perceptual_score),)
EXTRAS = ("perceptual", "speech", "bsseval")
#: Unit, and which way is better ("" where neither is), by name.
KINDS = {measure.name: (measure.unit, measure.better) for measure in (*WITH_TRUTH, *SPEECH, *PERCEPTUAL)} | {
    "Channel level error": ("dB", "lower"),
    "Channel phase error": ("rad", "lower"),
    **{f"BSSEval {name}": ("dB", "higher") for name in ("SDR", "ISR", "SIR", "SAR")},
    "Spectral flatness": ("dB", ""),
    "Kurtosis ratio (musical noise over 0)": ("", "lower"),
    "Beyond the song": ("dB", ""),
}


def check_extras(names: Iterable[str]) -> None:
    """Raises OptionError for a name that is not among EXTRAS."""
    for name in names:
        if name not in EXTRAS:
            raise OptionError(f"measure {name!r} is unknown; choose from {', '.join(EXTRAS)}")


def measure(
    before: np.ndarray,
    after: np.ndarray,
    truth: np.ndarray | None,
    mix: np.ndarray | None,
    sample_rate: int,
    also: Iterable[str] = (),
    brief: bool = False,
) -> dict[str, tuple[float, float]]:
    """Figures of two sounds (C, T) by name, before and after; a true sound that is silent is left out. `brief`: of all
    that needs no extra only BRIEF."""
    found: dict[str, tuple[float, float]] = {}
    if truth is not None and truth.any():
        plain = BRIEF if brief else WITH_TRUTH
        for one in (*plain, *(SPEECH if "speech" in also else ()), *(PERCEPTUAL if "perceptual" in also else ())):
            found[one.name] = (one.function(before, truth, sample_rate), one.function(after, truth, sample_rate))
        channels = [None if brief else spectral.channel_errors(x, truth, sample_rate) for x in (before, after)]
        if channels[0] is not None and channels[1] is not None:
            pairs = zip(*channels, strict=True)
            found |= dict(zip(("Channel level error", "Channel phase error"), pairs, strict=True))
        if "bsseval" in also:
            first, second = (listening.bss_eval(sound, truth, mix) for sound in (before, after))
            found |= {f"BSSEval {name}": (first[name], second[name]) for name in first if name in second}
    if brief:
        return found
    found["Spectral flatness"] = (spectral.spectral_flatness_db(before), spectral.spectral_flatness_db(after))
    found["Kurtosis ratio (musical noise over 0)"] = (0.0, spectral.kurtosis_ratio(after, before))
    if mix is not None:
        found["Beyond the song"] = (spectral.beyond_song_db(before, mix), spectral.beyond_song_db(after, mix))
    return found
