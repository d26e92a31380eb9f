"""All measures of a repair by name, with and without the true stem."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from . import listening, mel, spectral
from .basic import log_spectral_distance, pause_level, sdr, si_sdr


@dataclass(frozen=True)
class Measure:
    """One measure of a stem against the true one. better: "higher" or "lower". function: (stem, true stem, sample rate)
    to its value, nan if there is nothing to measure."""

    name: str
    unit: str
    better: str
    function: Callable[[np.ndarray, np.ndarray, int], float]


WITH_TRUTH = (
    Measure("SI-SDR", "dB", "higher", lambda x, s, _: si_sdr(x, s)),
    Measure("SDR", "dB", "higher", lambda x, s, _: sdr(x, s)),
    Measure("Log-spectral distance", "dB", "lower", lambda x, s, _: log_spectral_distance(x, s)),
    Measure("Level in pauses", "dB", "lower", lambda x, s, _: pause_level(x, s)),
    Measure("Bleedless", "", "higher", mel.bleedless),
    Measure("Fullness", "", "higher", mel.fullness),
    Measure("Multi-resolution STFT distance", "", "lower", lambda x, s, _: spectral.multi_resolution_distance(x, s)),
    Measure("Frequency response error", "dB", "lower", spectral.band_response_error_db),
    Measure("Phase agreement", "", "higher", lambda x, s, _: spectral.phase_agreement(x, s)),
    Measure("Phase agreement, worst band", "", "higher", spectral.worst_band_phase),
    Measure("Coherence between bands", "", "higher", spectral.band_coherence),
    Measure("Instantaneous frequency agreement", "", "higher", lambda x, s, _: spectral.frequency_agreement(x, s)),
    Measure("Group delay agreement", "", "higher", lambda x, s, _: spectral.delay_agreement(x, s)),
    Measure("Onset error", "", "lower", spectral.onset_error),
)
#: The subset for quick runs.
BRIEF = WITH_TRUTH[:6]
#: Measures that need the extra [metrics]; EXTRAS are the names that select them.
SPEECH = (
    Measure("PESQ", "", "higher", listening.pesq_score),
    Measure("STOI", "", "higher", listening.stoi_score),
)
PERCEPTUAL = (Measure("Perceptual score (2f)", "", "higher", listening.perceptual_score),)
EXTRAS = ("perceptual", "speech", "bsseval")
#: Unit and better direction ("higher", "lower", or "" if neither is better) of every measure, by name.
MEASURE_INFO = {measure.name: (measure.unit, measure.better) for measure in (*WITH_TRUTH, *SPEECH, *PERCEPTUAL)} | {
    "Channel level error": ("dB", "lower"),
    "Channel phase error": ("rad", "lower"),
    **{f"BSSEval {name}": ("dB", "higher") for name in ("SDR", "ISR", "SIR", "SAR")},
    "Spectral flatness": ("dB", ""),
    "Musical noise (kurtosis ratio)": ("", "lower"),
    "Energy not in the mix": ("dB", ""),
    "Nothing added": ("bleedless against the stem before", ""),
    "Nothing taken": ("fullness against the stem before", ""),
}


def check_extras(names: Iterable[str]) -> None:
    """Raise OptionError for a name that is not in EXTRAS."""
    for name in names:
        if name not in EXTRAS:
            raise OptionError(f"unknown measure {name!r}; choose from {', '.join(EXTRAS)}")


def measure(
    before: np.ndarray,
    after: np.ndarray,
    truth: np.ndarray | None,
    mix: np.ndarray | None,
    sample_rate: int,
    also: Iterable[str] = (),
    brief: bool = False,
) -> dict[str, tuple[float, float]]:
    """Measure a stem before and after a repair, both (C, T): (before, after) by name of the measure.

    truth: the true stem; without it, or if it is silent, only the measures that need no reference are taken. mix: the
    mix. also: names from EXTRAS. brief: take only BRIEF and what `also` names.
    """
    values: dict[str, tuple[float, float]] = {}
    if truth is not None and truth.any():
        standard = BRIEF if brief else WITH_TRUTH
        for one in (*standard, *(SPEECH if "speech" in also else ()), *(PERCEPTUAL if "perceptual" in also else ())):
            values[one.name] = (one.function(before, truth, sample_rate), one.function(after, truth, sample_rate))
        channels = [None if brief else spectral.channel_errors(x, truth, sample_rate) for x in (before, after)]
        if channels[0] is not None and channels[1] is not None:
            pairs = zip(*channels, strict=True)
            values |= dict(zip(("Channel level error", "Channel phase error"), pairs, strict=True))
        if "bsseval" in also:
            first, second = (listening.bss_eval(stem, truth, mix) for stem in (before, after))
            values |= {f"BSSEval {name}": (first[name], second[name]) for name in first if name in second}
    if brief:
        return values
    if truth is None and before.any():
        values["Nothing added"] = (100.0, mel.bleedless(after, before, sample_rate))
        values["Nothing taken"] = (100.0, mel.fullness(after, before, sample_rate))
    values["Spectral flatness"] = (spectral.spectral_flatness_db(before), spectral.spectral_flatness_db(after))
    values["Musical noise (kurtosis ratio)"] = (0.0, spectral.kurtosis_ratio(after, before))
    if mix is not None:
        energies = spectral.energy_not_in_mix_db(before, mix), spectral.energy_not_in_mix_db(after, mix)
        values["Energy not in the mix"] = energies
    return values
