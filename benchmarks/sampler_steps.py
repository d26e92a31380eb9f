"""What more sampler steps gain and cost, and how well true stems are preserved, with and without the trust curve.

python -m stemprover.benchmarks.sampler_steps cases/test --cases 4
python -m stemprover.benchmarks.sampler_steps cases/test --cases 2 --path     # why more steps gain what they gain
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from ..engine.constants import MODEL_RATE
from ..engine.dsp.stft import Stft, whole_stft
from ..engine.features import FeatureMaker
from ..engine.metrics.basic import log_spectral_distance, sdr, si_sdr, windowed
from ..engine.repair import Repairer
from ..engine.runtime import Control
from ..reports.validate import Case, find_cases
from .table import print_table

WINDOW_S = 5
STEPS = (1, 2, 4, 8)
TIMES = (0.75, 0.5, 0.25)


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At most `most` cases of each kind, evenly spread."""
    by_kind = defaultdict(list)
    for case in cases:
        by_kind[case.kind].append(case)
    return [
        group[place]
        for group in by_kind.values()
        for place in sorted(set(np.linspace(0, len(group) - 1, most).round().astype(int)))
    ]


def measured(repairer: Repairer, case: Case, with_mix: bool) -> tuple[float, float, float, float]:
    """SI-SDR and log-spectral distance in dB, each after minus before, medians over windows; the SDR in dB at which the
    true stem comes back from the same repair; seconds of work a second of audio."""
    sounds, rate = {}, 44100
    for name in ("truth", "degraded", "mix"):
        path = getattr(case, name)
        if path is not None:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
            sounds[name] = sound.T
    truth, before = sounds["truth"], sounds["degraded"]
    mix = sounds.get("mix") if with_mix else None
    began = time.perf_counter()
    after = repairer.process(before, rate, mix)
    took = (time.perf_counter() - began) / (before.shape[1] / rate)
    window = WINDOW_S * rate
    differences = [
        float(np.nanmedian(windowed(measure, after, truth, window) - windowed(measure, before, truth, window)))
        for measure in (si_sdr, log_spectral_distance)
    ]
    return *differences, sdr(repairer.process(truth, rate, mix), truth), took


def along_the_path(repairer: Repairer, case: Case, seconds: float = 6.0) -> dict[str, list[float]]:
    """Errors of single predictions in the latent, in dB relative to the stem's own error. By starting point: `end`, the
    end of the bridge, where it is the stem; and at TIMES `true`, a point on the way to the true stem, without noise;
    `noisy`, the same with the bridge's noise; `own`, the point that the sampler itself reaches."""
    runtime, rng = repairer.runtime, np.random.default_rng(0)
    bundle, ahead = runtime.bundle, runtime.bundle.lookahead
    count = int(seconds * MODEL_RATE)
    paths = (case.truth, case.degraded, case.mix or case.degraded)
    sounds = [soundfile.read(path, count, dtype="float32", always_2d=True)[0].T for path in paths]
    truth, stem, mix = (whole_stft(Stft(bundle.stft), sound)[None] for sound in sounds)
    maker = FeatureMaker(bundle.latent, bundle.stft)
    features = maker(stem, mix if case.mix else None, maker.start(1))[0]
    start = runtime.start(1, 1)
    control = runtime.control(features.control, start.control)[0]
    late = Control({name: np.ascontiguousarray(value[..., ahead:]) for name, value in control.outputs.items()})
    references = np.ascontiguousarray(features.references[..., :-ahead])
    z_true, z_stem = bundle.latent.encode(truth)[..., :-ahead], references[:, 0]

    def error_db(x: np.ndarray, t: float) -> tuple[np.ndarray, float]:
        found = runtime.denoise(np.ascontiguousarray(x, np.float32), t, references, late, start.denoiser[0])[0]
        wrong, wrong_before = (float(np.sum((z - z_true) ** 2)) for z in (found, z_stem))
        return found, 10 * float(np.log10(wrong / wrong_before))

    first, at_the_end = error_db(z_stem, 1.0)
    found: dict[str, list[float]] = {"end": [at_the_end], "true": [], "noisy": [], "own": []}
    for t in TIMES:
        w_x, w_y, sigma = bundle.schedule.marginal(t)
        noise = sigma * rng.standard_normal(z_true.shape)
        for name, x in (("true", z_true), ("noisy", z_true), ("own", first)):
            point = w_x * x + w_y * z_stem + (noise if name == "noisy" else 0.0)
            found[name].append(error_db(point, t)[1])
    return found


def print_path(repairer: Repairer, cases: Sequence[Case]) -> None:
    """Print medians over cases of `along_the_path`."""
    found = [along_the_path(repairer, case) for case in cases]
    end, rows = np.median([one["end"][0] for one in found]), []
    for name, start in (
        ("true", "the true stem, without noise"), ("noisy", "the true stem, with the bridge's noise"),
        ("own", "its own first prediction"),
    ):  # fmt: skip
        medians = np.median([one[name] for one in found], axis=0)
        rows.append([start, f"{end:+.2f}", *(f"{value:+.2f}" for value in medians)])
    title = "Error of one prediction in the latent, relative to the stem's own, dB"
    print_table(title, ["from", *(f"t = {t:g}" for t in (1.0, *TIMES))], rows)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="cases made by stemprover.engine.train.cases")
    parser.add_argument("--cases", type=int, default=4, help="of each kind")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--no-mix", action="store_true")
    parser.add_argument("--model", type=Path, default=None, help="a bundle to use in place of the shipped one")
    parser.add_argument("--path", action="store_true", help="measure predictions from points along the bridge")
    given = parser.parse_args(arguments)
    cases = spread(find_cases(given.folder), given.cases)
    if given.path:
        print_path(Repairer(bundle=given.model, restrained=False), cases)
        return
    kinds, table = list(dict.fromkeys(case.kind for case in cases)), []
    for count in given.steps:
        for restrained in (True, False):
            repairer = Repairer(bundle=given.model, steps=count, jobs=1, restrained=restrained)
            found = [measured(repairer, case, not given.no_mix) for case in cases]
            cells = []
            for kind in kinds:
                rows = np.array([row for row, case in zip(found, cases, strict=True) if case.kind == kind])
                cells.append(f"{np.median(rows[:, 0]):+.2f} / {np.median(rows[:, 1]):+.2f}")
            clean, took = (np.array([row[i] for row in found]) for i in (2, 3))
            back = f"{np.median(clean):.1f} dB, worst {clean.min():.1f} dB"
            table.append([str(count), "on" if restrained else "off", *cells, back, f"{np.median(took):.3f}"])
    title = "SI-SDR gain / change of the log-spectral distance in dB, medians"
    print_table(title, ["steps", "trust curve", *kinds, "a true stem comes back at", "real-time factor"], table)


if __name__ == "__main__":
    main()
