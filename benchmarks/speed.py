"""`stemprover bench`: speed and memory on this machine.

Everything is measured in processes of its own, without a limit on the threads of NumPy's BLAS from outside. Times are
shown twice: wall seconds, which a user waits, and CPU seconds, which all threads together take.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from ..engine.adapters import active_adapters, merge_adapters
from ..engine.bundle import Bundle, base_bundle
from ..engine.constants import MODEL_RATE
from ..engine.detect.detectors import Detectors
from ..engine.dsp.stft import Stft
from ..engine.preset import list_presets
from ..engine.repair import QUALITY_STEPS, Repairer
from ..engine.runtime import Runtime
from ..engine.stream import CorrectionStream
from ..reports.demo import DEMO
from .processes import Usage, call_in_process, run_measured
from .table import print_table

FIRST_BLOCK = """
import numpy as np
from stemprover import Repairer, load_preset
repairer = Repairer(load_preset("general"), device={device!r})
stream = repairer.stream(44100, 2)
block = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
fed = 0
while fed <= stream.latency_samples:
    out = stream.process(block)
    fed += 512
assert np.isfinite(out).all()
"""


def excerpt(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """The demo's stem and mix (2, T) at 44.1 kHz, repeated to a length."""
    count = round(seconds * MODEL_RATE)
    sounds = [soundfile.read(DEMO / f"{name}.flac", dtype="float32")[0].T for name in ("separated", "song")]
    return tuple(np.tile(s, (1, -(-count // s.shape[1])))[:, :count] for s in sounds)  # type: ignore[return-value]


def fastest(work: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Wall and CPU seconds of the fastest of some runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(times)


def repair_usage(folder: Path, seconds: float, device: str, *options: str) -> Usage:
    """What `stemprover repair` takes for stereo files of a length, with the mix."""
    stem, mix = excerpt(60.0)
    for name, sound in (("stem", stem), ("mix", mix)):
        with soundfile.SoundFile(folder / f"{name}.wav", "w", MODEL_RATE, 2, "PCM_16") as file:
            left = round(seconds * MODEL_RATE)
            while left > 0:
                file.write(sound[:, :left].T)
                left -= sound.shape[1]
    out = folder / "out.wav"
    usage = run_measured([
        *(sys.executable, "-m", "stemprover", "repair", str(folder / "stem.wav"), "-o", str(out), "--overwrite"),
        *("--mix", str(folder / "mix.wav"), "--device", device, *options),
    ])  # fmt: skip
    out.unlink()
    return usage


def control_savings(device: str, seconds: float) -> list[tuple[int, float]]:
    """(steps, wall time with the control branch recomputed for each step / wall time with it computed once)."""
    runtime = Runtime(Bundle.load(base_bundle()), device=device)
    stem, mix = (sound[None, :, : round(seconds * MODEL_RATE) // 512 * 512] for sound in excerpt(seconds))
    ratios = []
    for steps in (1, 2, 4, 8):
        times = []
        for recompute in (False, True):
            stream = CorrectionStream(runtime, steps, recompute)
            times.append(fastest(lambda s=stream: s.process(stem, mix, s.start(1)))[0])  # type: ignore[misc]
        ratios.append((steps, times[1] / times[0]))
    return ratios


def detector_costs(seconds: float) -> list[tuple[int, float, float]]:
    """(frames at a time, wall and CPU seconds a second of audio) of the detectors with the mix, from spectra to
    severities."""
    detectors, stft = Detectors(), Stft()
    stem, mix = (
        stft.analysis(sound[:, : sound.shape[1] // 512 * 512], stft.start_analysis(2))[0] for sound in excerpt(seconds)
    )

    def analyse(size: int) -> None:
        state = detectors.start()
        for start in range(0, stem.shape[-1], size):
            part = slice(start, start + size)
            _, state = detectors(stem[..., part], mix[..., part], state)

    costs = []
    for size in (4, 32, 512):
        wall, cpu = fastest(lambda s=size: analyse(s))  # type: ignore[misc]
        costs.append((size, wall / seconds, cpu / seconds))
    return costs


def blend_costs(device: str) -> list[tuple[int, float, float]]:
    """(adapters, seconds to merge them into the graphs, seconds until the model is ready): for one adapter, and for
    those of all trained presets together."""
    bundle = Bundle.load(base_bundle())
    files = [file for preset in list_presets() if preset.is_shipped and preset.trained for file in preset.adapters]
    costs = []
    for count in sorted({1, len(files)} if files else ()):
        blend = dict.fromkeys(files[:count], 1.0 / count)
        merge, _ = fastest(lambda b=blend: merge_adapters(bundle, active_adapters(b)))  # type: ignore[misc]
        costs.append((count, merge, fastest(lambda b=blend: Repairer(blend=b, device=device))[0]))  # type: ignore[misc]
    return costs


def first_block(device: str) -> Usage:
    """What a new process takes until its first repaired block: the fastest of three, after one that does not count."""
    program = [sys.executable, "-c", FIRST_BLOCK.format(device=device)]
    run_measured(program)
    return min((run_measured(program) for _ in range(3)), key=lambda usage: usage.wall_s)


def run(device: str = "auto", quick: bool = False) -> None:
    """Measure and print. quick: shorter files, and memory for 1 and 5 minutes alone."""
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, device {device}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="stemprover-bench-") as name:
        _print_jobs(Path(name), 30.0 if quick else 180.0, device)
        _print_parts(device)
        usage = first_block(device)
        print(f"A new process has its first repaired block after {usage.wall_s:.2f} s ({usage.cpu_s:.2f} CPU s).\n")
        minutes: dict[str, tuple[int, ...]] = {"general": (1, 5)}
        if not quick:
            minutes = {"general": (1, 5, 60), "auto": (1, 5, 15)}
        _print_memory(Path(name), minutes, device)


def _print_jobs(folder: Path, seconds: float, device: str) -> None:
    by_steps: dict[int, list[str]] = {}
    for quality, steps in QUALITY_STEPS.items():
        by_steps.setdefault(steps, []).append(quality)
    rows = []
    for steps, qualities in by_steps.items():
        one, two = (
            repair_usage(folder, seconds, device, *f"--preset general --quality {qualities[0]} --jobs {jobs}".split())
            for jobs in (1, 2)
        )
        cells = [f"{value / seconds:.3f}" for value in (one.wall_s, one.cpu_s, two.wall_s, two.cpu_s)]
        ratios = [f"{two.wall_s / one.wall_s:.2f}", f"{two.cpu_s / one.cpu_s:.2f}"]
        rows.append([", ".join(qualities), str(steps), *cells, *ratios])
    print_table(
        f"`stemprover repair --mix --preset general` of {seconds:g} s in stereo, start-up included: seconds a second "
        "of audio",
        ["quality", "steps", "wall, 1 job", "CPU, 1 job", "wall, 2 jobs", "CPU, 2 jobs", "wall, 2 jobs / 1",
         "CPU, 2 jobs / 1"],
        rows,
    )  # fmt: skip


def _print_parts(device: str) -> None:
    rows = [[str(steps), f"{ratio:.2f}"] for steps, ratio in call_in_process(control_savings, device, 10.0)]
    title = "Control branch computed for each step, against once for all steps"
    print_table(title, ["steps", "wall, each step / once"], rows)
    rows = [[str(size), f"{wall:.4f}", f"{cpu:.4f}"] for size, wall, cpu in call_in_process(detector_costs, 10.0)]
    title = "Detectors alone, stereo with the mix: seconds a second of audio"
    print_table(title, ["frames at a time", "wall", "CPU"], rows)
    rows = [[str(n), f"{merged:.3f} s", f"{ready:.3f} s"] for n, merged, ready in call_in_process(blend_costs, device)]
    print_table("Loading a blend", ["adapters", "merged after", "model ready after"], rows)


def _print_memory(folder: Path, minutes: dict[str, tuple[int, ...]], device: str) -> None:
    rows = []
    for preset, lengths in minutes.items():
        usages = {n: repair_usage(folder, 60.0 * n, device, "--preset", preset, "--quality", "draft") for n in lengths}
        for n, usage in usages.items():
            costs = (f"{usage.wall_s / (60 * n):.3f}", f"{usage.cpu_s / (60 * n):.3f}")
            ratio = f"{usage.peak_mb / usages[5].peak_mb:.2f}"
            rows.append([preset, str(n), f"{usage.peak_mb:.0f} MB", ratio, *costs])
    print_table(
        "`stemprover repair --mix --quality draft` of stereo files: peak memory, and seconds a second of audio",
        ["preset", "minutes", "peak memory", "against 5 minutes", "wall", "CPU"], rows,
    )  # fmt: skip
